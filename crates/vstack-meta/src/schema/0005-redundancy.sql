-- What an operator fixed and when a video was last converted. A video without a row is the policy's and was never converted.
CREATE TABLE video_redundancy(
  video_id TEXT PRIMARY KEY REFERENCES videos(video_id) ON DELETE CASCADE,
  -- The scheme that an operator fixed; NULL leaves it to the policy.
  pin TEXT CHECK(pin IN ('rep', 'rs(3,2)')),
  converted_at INTEGER
) STRICT, WITHOUT ROWID;
