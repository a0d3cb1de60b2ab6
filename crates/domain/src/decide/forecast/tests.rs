use super::*;

const HOUR: Season = Season { day: 24, week: 168, horizon: 1 };

fn after(season: Season, values: impl IntoIterator<Item = i64>) -> Forecaster {
    let mut forecaster = Forecaster::new(season);
    values.into_iter().for_each(|value| forecaster.observe(value));
    forecaster
}

/// Noise without a generator's help: a fixed sequence between 0 and 999.
fn noise(at: u64) -> i64 {
    let mixed = (at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    i64::try_from((mixed >> 33) % 1000).unwrap()
}

#[test]
fn nothing_is_said_of_what_was_never_seen() {
    assert_eq!(Forecaster::new(HOUR).forecast(), None);
}

#[test]
fn a_constant_series_is_forecast_exactly_and_its_bounds_close() {
    let forecast = after(HOUR, [700; 100]).forecast().unwrap();
    assert_eq!((forecast.model, forecast.value), (Model::Last, 700), "the simplest of equals");
    assert_eq!((forecast.lower, forecast.upper), (700, 700));
    assert_eq!((forecast.accuracy.scored, forecast.accuracy.wape_ppm), (99, 0));
}

#[test]
fn a_daily_wave_is_taken_from_the_day_before() {
    let wave = |at: i64| if at % 24 < 12 { 100 } else { 900 };
    let season = Season { horizon: 6, ..HOUR };
    let forecast = after(season, (0..24 * 20).map(wave)).forecast().unwrap();
    assert_eq!((forecast.model, forecast.value), (Model::Daily, wave(24 * 20 + 5)));
}

#[test]
fn a_weekly_habit_is_taken_from_the_week_before() {
    let weekend = |at: i64| if at / 24 % 7 >= 5 { 50 } else { 1_000 };
    let season = Season { horizon: 24, ..HOUR };
    let forecast = after(season, (0..168 * 6).map(weekend)).forecast().unwrap();
    assert_eq!((forecast.model, forecast.value), (Model::Weekly, weekend(168 * 6 + 23)));
}

#[test]
fn the_models_say_what_their_formulas_say() {
    let mut models = Models::new(Season { day: 2, week: 4, horizon: 3 });
    for value in [10.0, 20.0, 12.0, 26.0] {
        models.observe(value);
    }
    let [last, daily, weekly, ewma, both, winters] = models.guesses();
    assert_eq!((last, daily, weekly, both), (Some(26.0), Some(12.0), Some(12.0), Some(19.0)));
    // 10, 13, 12.7, 16.69; and, from level 15 and times (-5, 5): 15.6, 17.22 and trends of each change.
    assert!((ewma.unwrap() - 16.69).abs() < 1e-9);
    let first = 0.3 * (12.0 + 5.0) + 0.7 * 15.0;
    let trend = 0.01 * (first - 15.0);
    let even = 0.3 * (12.0 - first) + 0.7 * -5.0;
    let second = 0.3 * (26.0 - 5.0) + 0.7 * (first + trend);
    let trend = 0.01 * (second - first) + 0.99 * trend;
    assert!((winters.unwrap() - (second + 3.0 * trend + even)).abs() < 1e-9);
}

#[test]
fn bounds_hold_their_share_on_noise_and_after_it_grows() {
    let grows = (0..6_000_u64).map(|at| if at < 3_000 { 5_000 + noise(at) } else { 5_000 + 8 * noise(at) });
    let accuracy = after(HOUR, grows).accuracy();
    for held in [accuracy.upper_held_ppm, accuracy.lower_held_ppm] {
        assert!((870_000..=930_000).contains(&held), "{accuracy:?}");
    }
}

#[test]
fn extreme_values_saturate() {
    let forecast = after(HOUR, [i64::MAX, i64::MIN, i64::MAX, 0, i64::MIN]).forecast().unwrap();
    assert!(forecast.lower <= forecast.upper);
}
