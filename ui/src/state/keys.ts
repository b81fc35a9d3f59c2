// One table of keys: it drives the handler, the tooltips and the list behind "?".

export type Scope = "any" | "library" | "player";

export type Action =
  | "toggle-play"
  | "back-10"
  | "forward-10"
  | "back-5"
  | "forward-5"
  | "to-start"
  | "to-end"
  | "to-tenth"
  | "louder"
  | "quieter"
  | "toggle-mute"
  | "toggle-fullscreen"
  | "toggle-panel"
  | "toggle-report"
  | "next-video"
  | "resume"
  | "leave"
  | "search"
  | "queue-video"
  | "add-video"
  | "show-settings"
  | "show-keys";

export interface KeyBinding {
  action: Action;
  /** `KeyboardEvent.key`, lower case if a letter; "Ctrl+" or "Shift+" in front where it must be held. The first one is the hint. */
  keys: readonly string[];
  label: string;
  group: "Playback" | "Sound" | "Window" | "Library";
  scope: Scope;
}

const DIGITS = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"] as const;

export const KEYS: readonly KeyBinding[] = [
  { action: "toggle-play", keys: [" ", "k"], label: "Play or pause", group: "Playback", scope: "player" },
  { action: "back-10", keys: ["j"], label: "Back 10 seconds", group: "Playback", scope: "player" },
  { action: "forward-10", keys: ["l"], label: "Forward 10 seconds", group: "Playback", scope: "player" },
  { action: "back-5", keys: ["ArrowLeft"], label: "Back 5 seconds", group: "Playback", scope: "player" },
  { action: "forward-5", keys: ["ArrowRight"], label: "Forward 5 seconds", group: "Playback", scope: "player" },
  { action: "to-start", keys: ["Home"], label: "To the beginning", group: "Playback", scope: "player" },
  { action: "to-end", keys: ["End"], label: "To the end", group: "Playback", scope: "player" },
  { action: "to-tenth", keys: DIGITS, label: "To 0 %, 10 % … 90 %", group: "Playback", scope: "player" },
  { action: "next-video", keys: ["Shift+n"], label: "Next video", group: "Playback", scope: "player" },
  { action: "resume", keys: ["r"], label: "Go on where you left", group: "Playback", scope: "player" },
  { action: "louder", keys: ["ArrowUp"], label: "Louder", group: "Sound", scope: "player" },
  { action: "quieter", keys: ["ArrowDown"], label: "Quieter", group: "Sound", scope: "player" },
  { action: "toggle-mute", keys: ["m"], label: "Mute or unmute", group: "Sound", scope: "player" },
  { action: "toggle-fullscreen", keys: ["f", "F11"], label: "Full screen", group: "Window", scope: "player" },
  { action: "toggle-panel", keys: ["n"], label: "Node panel", group: "Window", scope: "player" },
  { action: "toggle-report", keys: ["i"], label: "Report of this session", group: "Window", scope: "player" },
  { action: "leave", keys: ["Escape"], label: "Leave full screen, or back to the library", group: "Window", scope: "any" },
  { action: "search", keys: ["/"], label: "Search titles", group: "Library", scope: "library" },
  { action: "queue-video", keys: ["q"], label: "Add a video to Up next, or take it out", group: "Library", scope: "library" },
  { action: "add-video", keys: ["Ctrl+o"], label: "Add video", group: "Library", scope: "any" },
  { action: "show-settings", keys: ["Ctrl+,"], label: "Settings", group: "Window", scope: "any" },
  { action: "show-keys", keys: ["?"], label: "Keyboard shortcuts", group: "Window", scope: "any" },
];

/** The part of a KeyboardEvent that decides. */
export interface KeyPress {
  key: string;
  code: string;
  ctrlKey: boolean;
  shiftKey: boolean;
  altKey: boolean;
  metaKey: boolean;
}

/**
 * The key's name in the table. A layout without Latin letters (Cyrillic, Greek …) is read by the key's place,
 * so that `k` works there as well.
 */
function nameOf(press: KeyPress): string {
  const isOtherScript = press.key.length === 1 && press.key > "\u007f";
  const key = isOtherScript && press.code.startsWith("Key") ? press.code.slice(3) : press.key;
  const name = key.length === 1 ? key.toLowerCase() : key;
  return press.ctrlKey ? `Ctrl+${name}` : name;
}

export interface Pressed {
  action: Action;
  /** For "to-tenth": 0 to 9. */
  digit: number;
}

/** What this press means in this view; null when nothing. */
export function pressed(press: KeyPress, view: "library" | "player"): Pressed | null {
  if (press.altKey || press.metaKey) return null;
  const name = nameOf(press);
  const here = KEYS.filter((binding) => binding.scope === "any" || binding.scope === view);
  const bound = (key: string): KeyBinding | undefined => here.find((binding) => binding.keys.includes(key));
  // A letter means the same with Shift held, or Caps Lock on, unless it is bound with Shift.
  const found = (press.shiftKey ? bound(`Shift+${name}`) : undefined) ?? bound(name);
  return found === undefined ? null : { action: found.action, digit: Number.parseInt(name, 10) || 0 };
}

const SHOWN: Readonly<Record<string, string>> = {
  " ": "Space",
  ArrowLeft: "←",
  ArrowRight: "→",
  ArrowUp: "↑",
  ArrowDown: "↓",
  Escape: "Esc",
};

function shown(key: string): string {
  return SHOWN[key] ?? key.replace(/^(Ctrl|Shift)\+(.)$/, (_, held: string, letter: string) => `${held}+${letter.toUpperCase()}`);
}

/** Keys of a binding as they are printed. */
export function printed(binding: KeyBinding): string[] {
  return binding.action === "to-tenth" ? ["0 – 9"] : binding.keys.map(shown);
}

/** Label and first key of an action, for a tooltip: "Mute or unmute (m)". */
export function hint(action: Action, label?: string): string {
  const binding = KEYS.find((candidate) => candidate.action === action);
  return binding === undefined ? (label ?? "") : `${label ?? binding.label} (${printed(binding)[0] ?? ""})`;
}
