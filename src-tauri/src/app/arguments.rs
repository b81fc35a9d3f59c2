//! The command line of the player.

use std::path::PathBuf;

use clap::Parser;
use vstack_client::PolicyName;
use vstack_core::id::VideoId;

/// Watch the videos of a V-Stack cluster, and add some.
#[derive(Debug, Clone, Parser)]
#[command(name = "vstack-player", version)]
pub struct Arguments {
    /// Metadata service of the cluster. Without it the settings decide, and without those the player starts a cluster of
    /// its own on this computer.
    #[arg(long, value_name = "URL", env = "VSTACK_METADATA_URL")]
    pub metadata_url: Option<String>,
    /// Play this video at once.
    #[arg(long, value_name = "VIDEO_ID")]
    pub play: Option<VideoId>,
    /// How sources are chosen: pool (ranges of a chunk from several nodes at once), seed (whole chunks by score), or to compare with: round-robin, random, single.
    /// Without it the settings decide, and without those pool.
    #[arg(long, value_name = "NAME", env = "VSTACK_POLICY")]
    pub policy: Option<PolicyName>,
    /// Print what plays, and where on the screen, as JSON lines.
    #[arg(long)]
    pub json: bool,
    /// Video files to upload; the id of a video to play it.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

impl Arguments {
    /// The video to open first, and the files to upload. A name that is a video's id and no file means the video.
    #[must_use]
    pub fn wishes(&self) -> (Option<VideoId>, Vec<PathBuf>) {
        let id_of = |file: &PathBuf| file.to_str().filter(|_| !file.exists())?.parse::<VideoId>().ok();
        let named = self.files.iter().find_map(id_of);
        let files = self
            .files
            .iter()
            .filter(|file| id_of(file).is_none())
            .cloned()
            .collect();
        (self.play.or(named), files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: &str = "3b241101-e2bb-4255-8caf-4136c566a962";

    #[test]
    fn an_id_is_played_and_a_file_is_uploaded() {
        let arguments = Arguments::try_parse_from(["vstack-player", "a b.mkv", VIDEO]).unwrap();
        assert_eq!(
            arguments.wishes(),
            (Some(VIDEO.parse().unwrap()), vec![PathBuf::from("a b.mkv")])
        );
        let arguments = Arguments::try_parse_from(["vstack-player", "--play", VIDEO]).unwrap();
        assert_eq!(arguments.wishes(), (Some(VIDEO.parse().unwrap()), Vec::new()));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        assert!(Arguments::try_parse_from(["vstack-player", "--play", "../../etc/passwd"]).is_err());
    }
}
