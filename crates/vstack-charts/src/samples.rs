//! From raw samples to what is worth drawing: fewer points, gaps where a sample is missing, a range to fit.

/// Points drawn for one series at most. A card is about 300 CSS pixels wide: more points would share a pixel.
pub const MAX_POINTS: usize = 300;

/// Largest magnitude that is drawn; what lies beyond is drawn there. `plotters` maps to 32-bit pixels and overflows
/// on the far ends of f64; no quantity of this system comes near 10^15 of its unit.
const LARGEST: f64 = 1e15;

/// A point to draw, in the units of the samples.
pub(crate) type Point = (f64, f64);

/// Thins `points` (ordered by x) to at most [`MAX_POINTS`].
///
/// Each bucket keeps its lowest and its highest point, in their order, so that a short dip or spike stays visible;
/// a bucket with nothing but gaps keeps one gap. Points whose x or y is not finite count as gaps.
pub(crate) fn thin(points: &[Point]) -> Vec<Point> {
    let bounded = |v: f64| {
        if v.is_finite() {
            v.clamp(-LARGEST, LARGEST)
        } else {
            f64::NAN
        }
    };
    let points: Vec<Point> = points.iter().map(|(x, y)| (bounded(*x), bounded(*y))).collect();
    if points.len() <= MAX_POINTS {
        return points;
    }
    // Each bucket may give three points: lowest, highest and a gap.
    let bucket_len = points.len().div_ceil(MAX_POINTS / 3);
    points.chunks(bucket_len).flat_map(extremes).collect()
}

fn extremes(bucket: &[Point]) -> Vec<Point> {
    let drawn = |at: &usize| is_drawn(&bucket[*at]);
    let by_y = |a: &usize, b: &usize| bucket[*a].1.total_cmp(&bucket[*b].1);
    let mut kept: Vec<usize> = Vec::with_capacity(3);
    kept.extend((0..bucket.len()).filter(drawn).min_by(by_y));
    kept.extend((0..bucket.len()).filter(drawn).max_by(by_y));
    kept.extend((0..bucket.len()).find(|at| !drawn(at)));
    kept.sort_unstable();
    kept.dedup();
    kept.into_iter().map(|at| bucket[at]).collect()
}

fn is_drawn(point: &Point) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

/// The unbroken lines: maximal runs of drawable points.
pub(crate) fn runs(points: &[Point]) -> Vec<&[Point]> {
    points
        .split(|point| !is_drawn(point))
        .filter(|run| !run.is_empty())
        .collect()
}

/// The gaps as (last x before, first x after); an end that has no neighbour ends at `first_x` or `last_x`.
pub(crate) fn gaps(points: &[Point], first_x: f64, last_x: f64) -> Vec<(f64, f64)> {
    let runs = runs(points);
    let starts = std::iter::once(first_x).chain(runs.iter().filter_map(|run| run.last()).map(|p| p.0));
    let ends = runs
        .iter()
        .filter_map(|run| run.first())
        .map(|p| p.0)
        .chain(std::iter::once(last_x));
    starts
        .zip(ends)
        .filter(|(start, end)| end > start)
        .filter(|_| points.iter().any(|p| !is_drawn(p)))
        .collect()
}

/// Lowest and highest of the finite `values`, widened so that a constant series has a height. `None` without any.
pub(crate) fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold(None, |seen: Option<(f64, f64)>, v| {
            Some(seen.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
        })?;
    if high - low > f64::EPSILON * high.abs().max(low.abs()) {
        return Some((low, high));
    }
    // A constant line is drawn in the middle of the picture.
    let margin = (high.abs() * 0.1).max(1.0);
    Some((low - margin, high + margin))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Point = (f64::NAN, f64::NAN);

    fn ramp(count: u32) -> Vec<Point> {
        (0..count).map(|i| (f64::from(i), f64::from(i % 7))).collect()
    }

    #[test]
    fn a_short_series_keeps_every_point() {
        assert_eq!(thin(&ramp(300)), ramp(300));
    }

    #[test]
    fn a_long_series_is_thinned_in_order_and_keeps_its_single_spike() {
        let mut points = ramp(100_000);
        points[54_321].1 = 999.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= MAX_POINTS, "{}", thinned.len());
        assert!(thinned.iter().any(|p| p.1 == 999.0));
        assert!(thinned.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_gap_stays_a_gap_after_thinning() {
        let mut points = ramp(3_000);
        points[1_000..2_000].fill(GAP);
        assert_eq!(runs(&thin(&points)).len(), 2);
    }

    #[test]
    fn missing_samples_split_the_line() {
        let points = [GAP, (1.0, 5.0), (2.0, 6.0), GAP, (4.0, f64::INFINITY), (5.0, 1.0)];
        let found: Vec<usize> = runs(&points).iter().map(|run| run.len()).collect();
        assert_eq!(found, [2, 1]);
        assert_eq!(gaps(&points, 0.0, 5.0), [(0.0, 1.0), (2.0, 5.0)]);
    }

    #[test]
    fn a_series_without_gaps_has_none() {
        assert_eq!(gaps(&ramp(5), 0.0, 4.0), []);
    }

    #[test]
    fn a_constant_series_gets_a_height_and_an_empty_one_has_no_range() {
        assert_eq!(range([4.0, 4.0].into_iter()), Some((3.0, 5.0)));
        assert_eq!(range([0.0].into_iter()), Some((-1.0, 1.0)));
        assert_eq!(range([f64::NAN, f64::INFINITY].into_iter()), None);
        assert_eq!(range([2.0, f64::NAN, 1.0].into_iter()), Some((1.0, 2.0)));
    }
}
