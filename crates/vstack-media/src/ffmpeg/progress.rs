//! What FFmpeg says on its progress descriptor: `key=value` lines, a block every half second.

/// The latest block.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// Presentation time up to which the output is written.
    pub out_time_ms: u64,
    /// Times real time; `None` until FFmpeg knows.
    pub speed: Option<f64>,
    pub finished: bool,
}

impl Progress {
    /// Takes one line in; returns whether it says something new.
    pub fn take_line(&mut self, line: &str) -> bool {
        let before = *self;
        let Some((key, value)) = line.trim().split_once('=') else {
            return false;
        };
        let value = value.trim();
        match key {
            // `N/A` and negative times (before the first frame) leave the last known one.
            "out_time_us" => {
                let ms = value
                    .parse::<i64>()
                    .ok()
                    .and_then(|us| u64::try_from(us / 1000).ok());
                self.out_time_ms = ms.unwrap_or(self.out_time_ms);
            }
            "speed" => self.speed = value.trim_end_matches('x').trim().parse().ok().or(self.speed),
            "progress" => self.finished = value == "end",
            _ => {}
        }
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read() {
        let mut progress = Progress::default();
        for line in [
            "frame=12",
            "out_time_us=4123456",
            "out_time=00:00:04.123456",
            "speed= 211x",
            "progress=continue",
        ] {
            progress.take_line(line);
        }
        assert_eq!(
            progress,
            Progress {
                out_time_ms: 4123,
                speed: Some(211.0),
                finished: false
            }
        );
        assert!(progress.take_line("progress=end"));
        assert!(progress.finished);
    }

    #[test]
    fn values_that_are_not_known_yet_change_nothing() {
        let mut progress = Progress {
            out_time_ms: 10,
            speed: Some(2.0),
            finished: false,
        };
        for line in [
            "out_time_us=N/A",
            "out_time_us=-40000",
            "speed=N/A",
            "garbage",
            "",
        ] {
            assert!(!progress.take_line(line), "{line}");
        }
    }
}
