// Dark, light or as the system says. Kept by the page alone: the program does not care.

export type Theme = "dark" | "light" | "system";

/** Dark first: it is the look the player was designed in, and posters and pictures stand out on it. */
const ORDER: readonly Theme[] = ["dark", "light", "system"];
const KEY = "theme";

export function savedTheme(): Theme {
  const saved = localStorage.getItem(KEY);
  return ORDER.find((theme) => theme === saved) ?? "dark";
}

export function nextTheme(theme: Theme): Theme {
  return ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length] ?? "dark";
}

/** Puts the theme on the document and remembers it. Returns what stops following the system. */
export function applyTheme(theme: Theme): () => void {
  localStorage.setItem(KEY, theme);
  const system = window.matchMedia("(prefers-color-scheme: light)");
  const paint = (): void => {
    document.documentElement.classList.toggle("light", theme === "light" || (theme === "system" && system.matches));
  };
  paint();
  system.addEventListener("change", paint);
  return () => system.removeEventListener("change", paint);
}
