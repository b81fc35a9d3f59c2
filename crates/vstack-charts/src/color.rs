//! Colours as numbers, and the one palette that every picture of a node uses.

use plotters::style::RGBColor;

/// An opaque colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rgb {
    pub red: u8,
    pub green: u8,
    pub blue: u8,
}

impl Rgb {
    #[must_use]
    pub const fn new(red: u8, green: u8, blue: u8) -> Self {
        Self { red, green, blue }
    }

    /// Reads `#rrggbb`, the form in which the page keeps its colours. Anything else is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let part = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
        Some(Self::new(part(0)?, part(2)?, part(4)?))
    }

    pub(crate) const fn plot(self) -> RGBColor {
        RGBColor(self.red, self.green, self.blue)
    }
}

/// One colour a node, by colour index 0 to 4; the page calls them `--n1` to `--n5`.
/// Okabe-Ito: they stay apart for people with any of the common colour blindnesses.
pub const NODE_COLORS: [Rgb; 5] = [
    Rgb::new(0x56, 0xb4, 0xe9),
    Rgb::new(0xe6, 0x9f, 0x00),
    Rgb::new(0x00, 0x9e, 0x73),
    Rgb::new(0xcc, 0x79, 0xa7),
    Rgb::new(0xf0, 0xe4, 0x42),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_colour_is_read_and_anything_else_is_refused() {
        assert_eq!(Rgb::parse("#56b4E9"), Some(NODE_COLORS[0]));
        for wrong in [
            "", "#", "56b4e9", "#56b4e", "#56b4e90", "#56b4eg", "#+6b4e9", "#56b4é",
        ] {
            assert_eq!(Rgb::parse(wrong), None, "{wrong}");
        }
    }
}
