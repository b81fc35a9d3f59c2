//! The page has a section for each layer, and text that people wrote between them. A run writes its own section anew and
//! touches nothing else.

use std::path::Path;

use anyhow::{Context as _, Result};

const TITLE: &str = "# The client's policies beside what the physics allow\n";

/// Puts `text` into the section `name` of the page, behind everything else where there is none yet.
pub(crate) fn put(page: &Path, name: &str, text: &str) -> Result<()> {
    let failed = || format!("cannot write {}", page.display());
    if let Some(folder) = page.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    let before = std::fs::read_to_string(page).unwrap_or_else(|_| TITLE.to_owned());
    std::fs::write(page, with_section(&before, name, text)).with_context(failed)
}

fn with_section(page: &str, name: &str, text: &str) -> String {
    let (begin, end) = (
        format!("<!-- layer {name} -->"),
        format!("<!-- end of layer {name} -->"),
    );
    let section = format!("{begin}\n{}\n{end}", text.trim_end());
    let found = page
        .split_once(&begin)
        .and_then(|(head, rest)| Some((head, rest.split_once(&end)?.1)));
    match found {
        Some((head, tail)) => format!("{head}{section}{tail}"),
        None => format!("{}\n\n{section}\n", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_written_anew_and_what_people_wrote_stays() {
        let first = with_section("# Title\n", "sim", "## Sim\n\nold\n");
        let both = with_section(&first, "netns", "## Netns\n");
        let by_hand = both.replace("<!-- layer netns -->", "By hand.\n\n<!-- layer netns -->");
        let again = with_section(&by_hand, "sim", "## Sim\n\nnew\n");
        assert_eq!(again, by_hand.replace("old", "new"));
        assert!(again.contains("By hand.") && again.contains("## Netns"));
    }

    #[test]
    fn a_page_that_is_missing_gets_a_title() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("docs/client.md");
        put(&page, "sim", "figures").unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.starts_with(TITLE) && text.contains("figures"));
    }
}
