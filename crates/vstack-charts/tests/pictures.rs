//! What every picture promises, checked on the SVG text itself.

use vstack_charts::{
    ChartTheme, LineChart, MAX_POINTS, NODE_COLORS, Rgb, Series, SparkStyle, line_chart, sparkline,
};

fn style() -> SparkStyle {
    SparkStyle::for_node("node-1: score, last 30 s", 0)
}

fn polylines(svg: &str) -> Vec<usize> {
    let points = |tag: &str| {
        tag.split("points=\"").nth(1).map_or(0, |p| {
            p.split('"').next().unwrap_or("").split_whitespace().count()
        })
    };
    svg.split('<')
        .filter(|tag| tag.starts_with("polyline"))
        .map(points)
        .collect()
}

fn assert_is_a_clean_picture(svg: &str) {
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.contains("role=\"img\"") && svg.contains("<title>"), "{svg}");
    assert_eq!(svg.matches("<svg").count(), 1, "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(!svg.contains("<script") && !svg.contains(" on"), "{svg}");
}

#[test]
fn a_sparkline_is_one_line_over_its_area_and_needs_no_font() {
    let svg = sparkline(&[1.0, 3.0, 2.0, 5.0], &style());
    assert_is_a_clean_picture(&svg);
    assert_eq!(polylines(&svg), [4]);
    assert_eq!(svg.matches("<polygon").count(), 1);
    assert!(svg.contains("#56B4E9") && !svg.contains("<text"), "{svg}");
    assert!(svg.contains("<title>node-1: score, last 30 s</title>"));
}

#[test]
fn the_same_samples_always_give_the_same_bytes() {
    let samples: Vec<f64> = (0..1_000).map(|i| f64::from(i * 7 % 101)).collect();
    assert_eq!(sparkline(&samples, &style()), sparkline(&samples, &style()));
}

#[test]
fn odd_input_gives_a_clean_picture() {
    let odd: [&[f64]; 8] = [
        &[],
        &[7.0],
        &[0.0, 0.0, 0.0],
        &[-5.0, -5.0],
        &[f64::NAN, f64::NAN],
        &[f64::INFINITY, f64::NEG_INFINITY, 3.0],
        &[f64::MAX, f64::MIN],
        &[1e-320, f64::MIN_POSITIVE],
    ];
    for samples in odd {
        for (min, max) in [
            (None, None),
            (Some(0.0), None),
            (Some(9.0), Some(1.0)),
            (Some(f64::NAN), None),
        ] {
            let svg = sparkline(samples, &SparkStyle { min, max, ..style() });
            assert_is_a_clean_picture(&svg);
        }
    }
}

#[test]
fn a_down_period_is_a_gap_with_its_own_mark() {
    let samples = [4.0, 4.0, f64::NAN, f64::NAN, 3.0, 5.0];
    let marked = sparkline(&samples, &style());
    assert_eq!(polylines(&marked), [2, 2, 2], "the mark and two runs");
    assert!(marked.contains("#FF6B6B"));
    let unmarked = sparkline(&samples, &SparkStyle { gap: None, ..style() });
    assert_eq!(polylines(&unmarked), [2, 2]);
}

#[test]
fn a_lonely_answer_between_two_gaps_is_a_dot() {
    let svg = sparkline(&[f64::NAN, 4.0, f64::NAN], &style());
    assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
}

#[test]
fn no_series_has_more_points_than_promised() {
    let samples: Vec<f64> = (0..50_000).map(f64::from).collect();
    for count in polylines(&sparkline(&samples, &style())) {
        assert!(count <= MAX_POINTS, "{count}");
    }
}

fn report(series: Vec<Series>) -> LineChart {
    LineChart {
        title: "Buffer <while> node-3 is down".into(),
        x_label: "time, s".into(),
        y_label: "buffer, s".into(),
        width_px: 640,
        height_px: 320,
        theme: ChartTheme::DARK,
        series,
    }
}

fn line(name: &str, stroke: Rgb, points: Vec<(f64, f64)>) -> Series {
    Series {
        name: name.into(),
        stroke,
        points,
    }
}

#[test]
fn a_line_chart_has_axes_labels_and_a_legend() {
    let ramp = |slope: f64| (0..60).map(|s| (f64::from(s), f64::from(s) * slope)).collect();
    let svg = line_chart(&report(vec![
        line("seed", NODE_COLORS[0], ramp(0.5)),
        line("pool", NODE_COLORS[1], ramp(0.7)),
    ]));
    assert_is_a_clean_picture(&svg);
    for text in [
        "time, s",
        "buffer, s",
        "seed",
        "pool",
        "Buffer &lt;while&gt; node-3 is down",
    ] {
        assert!(svg.contains(text), "{text} is missing in {svg}");
    }
}

#[test]
fn a_line_chart_bears_empty_constant_and_broken_series() {
    let broken = vec![(0.0, 1.0), (1.0, f64::NAN), (f64::INFINITY, 2.0), (3.0, 1.0)];
    for series in [
        vec![],
        vec![line("none", NODE_COLORS[2], vec![])],
        vec![line("broken", NODE_COLORS[2], broken)],
    ] {
        assert_is_a_clean_picture(&line_chart(&report(series)));
    }
}
