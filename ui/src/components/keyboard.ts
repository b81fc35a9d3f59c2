// Which key presses belong to the element that has the focus, not to the table of keys.

/** The part of the focused element that decides. */
export interface Focused {
  tagName: string;
  type?: string;
  isContentEditable?: boolean;
}

const PRESSABLE = ["BUTTON", "A", "SUMMARY"];
const MOVED_BY_ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"];

export function belongsToFocus(focused: Focused | null, key: string): boolean {
  if (focused === null) return false;
  const { tagName, type } = focused;
  if (focused.isContentEditable === true || tagName === "TEXTAREA" || tagName === "SELECT") return true;
  if (tagName === "INPUT") return type === "range" ? MOVED_BY_ARROWS.includes(key) : true;
  return PRESSABLE.includes(tagName) && (key === " " || key === "Enter");
}
