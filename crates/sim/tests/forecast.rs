//! Projection on measured series: as good as the best single model, and bounds that hold their share.
//!
//! Series, horizons and warm-up are those of the reference: 5 and 60 minutes ahead; the first 14 days, or 40 %
//! of a shorter series, are not scored. A bound of one side holds 90 % of the values.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use skein_domain::decide::forecast::{Forecaster, Season};

/// Name and interval, s.
const SERIES: [(&str, u32); 5] = [
    ("elb_request_count_8c0756", 300),
    ("nyc_taxi", 1800),
    ("Twitter_volume_AMZN", 300),
    ("cpu_utilization_asg_misconfiguration", 300),
    ("ec2_request_latency_system_failure", 300),
];

/// Thousandths of a unit.
fn series(name: &str) -> Vec<i64> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/nab").join(format!("{name}.csv.gz"));
    let file = flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap());
    let rows = csv::Reader::from_reader(file).into_records();
    rows.map(|row| thousandths(row.unwrap()[1].parse().unwrap())).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "values of the series are below a million")]
fn thousandths(value: f64) -> i64 {
    (value * 1000.0).round() as i64
}

/// Errors of each of the six models by itself, as shares of the values, computed apart from the product in the
/// reference's own way: last, day, week, ewma, last and day, Holt-Winters.
fn models_alone(y: &[f64], season: Season, scored_from: usize) -> [f64; 6] {
    let Season { day, week, horizon } = season;
    let mut level = y[..day].iter().sum::<f64>() / count(day);
    let mut times: Vec<f64> = y[..day].iter().map(|value| value - level).collect();
    let (mut trend, mut ewma) = (0.0, y[0]);
    let mut sums = [(0.0, 0.0); 6];
    for i in day..y.len() - horizon {
        ewma += 0.3 * (y[i] - ewma);
        let (time, before) = (times[i % day], level);
        level = 0.3 * (y[i] - time) + 0.7 * (level + trend);
        trend = 0.01 * (level - before) + 0.99 * trend;
        times[i % day] = 0.3 * (y[i] - level) + 0.7 * time;
        let j = i + horizon;
        let of_day = y[j - day * horizon.div_ceil(day)];
        let of_week = j.checked_sub(week).map(|at| y[at]);
        let winters = f64::max(0.0, level + count(horizon) * trend + times[j % day]);
        let guesses = [Some(y[i]), Some(of_day), of_week, Some(ewma), Some(f64::midpoint(y[i], of_day)), Some(winters)];
        for (sum, guess) in sums.iter_mut().zip(guesses) {
            if let Some(guess) = guess.filter(|_| j >= scored_from) {
                *sum = (sum.0 + (y[j] - guess).abs(), sum.1 + y[j].abs());
            }
        }
    }
    sums.map(|(wrong, values)| wrong / values)
}

fn count(points: usize) -> f64 {
    f64::from(u32::try_from(points).unwrap())
}

/// Error as a share, and the shares of values that the upper and the lower bound held.
fn chosen(values: &[i64], season: Season, scored_from: usize) -> (f64, f64, f64) {
    let mut forecaster = Forecaster::new(season);
    let mut said = Vec::new();
    for value in values {
        forecaster.observe(*value);
        said.push(forecaster.forecast().unwrap());
    }
    let (mut wrong, mut sum, mut points, mut under, mut over) = (0, 0, 0_u32, 0_u32, 0_u32);
    for at in scored_from..values.len() {
        let (value, forecast) = (values[at], &said[at - season.horizon]);
        wrong += value.abs_diff(forecast.value);
        sum += value.unsigned_abs();
        points += 1;
        under += u32::from(value <= forecast.upper);
        over += u32::from(value >= forecast.lower);
    }
    let share = |part: u32| f64::from(part) / f64::from(points);
    (ratio(wrong, sum), share(under), share(over))
}

#[expect(clippy::cast_precision_loss, reason = "a share, shown and compared with 5 % of room")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[test]
fn on_every_series_it_is_as_good_as_the_best_model_and_its_bounds_hold_their_share() {
    let mut wrong = Vec::new();
    for (name, every_s) in SERIES {
        let values = series(name);
        let y: Vec<f64> = values.iter().map(|value| ratio(value.unsigned_abs(), 1000)).collect();
        let ahead: &[u32] = if every_s > 300 { &[3600] } else { &[300, 3600] };
        for ahead_s in ahead {
            let season = Season::new(every_s, *ahead_s);
            let scored_from = (14 * season.day).min(values.len() * 2 / 5);
            let alone = models_alone(&y, season, scored_from);
            let best = alone.iter().copied().fold(f64::INFINITY, f64::min);
            let (error, upper, lower) = chosen(&values, season, scored_from);
            let figures = alone.map(|share| format!("{:5.1}", 100.0 * share)).join(" ");
            eprintln!(
                "{name:<38} {:>3} min: alone {figures}  chosen {:5.1} ({:.3} of the best)  upper {:.1} % lower {:.1} %",
                ahead_s / 60,
                100.0 * error,
                error / best,
                100.0 * upper,
                100.0 * lower
            );
            if error > 1.05 * best || !(0.87..=0.93).contains(&upper) || !(0.87..=0.93).contains(&lower) {
                wrong.push(format!("{name} at {ahead_s} s"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
