//! What one item is expected to cost in a place, and what an ended attempt did cost.

use crate::needs::{CpuSetting, Needs};
use crate::quantity::NanoUsd;
use crate::solution::{Shared, Solution};
use crate::task::Profile;

use super::patience::DelayTable;
use super::policy::Policy;

const HOUR_MS: u64 = 3_600_000;

/// Run time to reckon with, ms: stated, or assumed within the longest run time.
pub fn expected_ms(profile: &Profile, policy: &Policy) -> u64 {
    profile
        .expected_run_ms
        .unwrap_or_else(|| profile.longest_run_ms.map_or(policy.assumed_run_ms, |l| l.min(policy.assumed_run_ms)))
}

/// On an instance with `slots` slots: its share of the hourly price. The share is that of its slots, or the CPU
/// set aside; of several slots and CPU, the larger.
pub fn on_instance(price_per_hour: NanoUsd, slots: u32, needs: &Needs, run_ms: u64) -> NanoUsd {
    let all = u64::from(slots.max(1));
    let taken = u64::from(needs.slots).min(all);
    let (share, of) = match needs.cpu {
        CpuSetting::AtLeast(percent) if needs.slots == 1 || u64::from(percent) * all >= taken * 100 => {
            (u64::from(percent), 100)
        }
        CpuSetting::Algorithm | CpuSetting::AtLeast(_) => (taken, all),
        CpuSetting::Exclusive => (1, 1),
    };
    NanoUsd::charge(price_per_hour, run_ms.saturating_mul(share), HOUR_MS.saturating_mul(of))
}

/// What data that leaves a solution costs, `bytes` of it.
pub fn data_out(per_gb_out: NanoUsd, bytes: u64) -> NanoUsd {
    NanoUsd::charge(per_gb_out, bytes, 1 << 30)
}

/// What an item of a profile is expected to cost in a shared solution: its run, what it leaves, and, where nothing
/// stays warm, the start that is billed.
pub fn expected_in_gateway(solution: &Solution, shared: &Shared, profile: &Profile, policy: &Policy) -> NanoUsd {
    let always_cold = shared.price.bills_cold && shared.keepalive_ms == 0;
    let cold_ms = if always_cold { DelayTable::of_p99(shared.cold_start_ms * 1_000).mean() / 1_000 } else { 0 };
    let run_ms = expected_ms(profile, policy).saturating_add(cold_ms);
    in_gateway(shared, profile.needs.memory_mb, run_ms) + expected_data_out(solution, profile)
}

/// What the outputs of a profile's items are expected to cost when they leave.
pub fn expected_data_out(solution: &Solution, profile: &Profile) -> NanoUsd {
    data_out(solution.per_gb_out, u64::from(profile.data_out_mb) << 20)
}

/// In a shared solution: the request, and the billed time (rounded up, at least the minimum) times
/// the memory.
pub fn in_gateway(shared: &Shared, memory_mb: u32, run_ms: u64) -> NanoUsd {
    let price = &shared.price;
    let granularity = price.granularity_ms.max(1);
    let billed_ms = run_ms.div_ceil(granularity).saturating_mul(granularity).max(price.min_billed_ms);
    price.per_request + NanoUsd::charge(price.per_gb_s, billed_ms.saturating_mul(u64::from(memory_mb)), 1024 * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solution::SharedPrice;

    #[test]
    fn lambda_list_price_for_one_minute_at_1_gb() {
        // 60 s x 1 GB x 0.0000166667 USD + 0.0000002 USD a request (data/prices, aws-lambda).
        let shared = Shared {
            url: String::new(),
            timeout_ms: 900_000,
            concurrency: 1,
            memory_mb_max: 10_240,
            price: SharedPrice {
                per_request: NanoUsd(200),
                per_gb_s: NanoUsd(16_667),
                granularity_ms: 1,
                min_billed_ms: 1,
                bills_cold: false,
            },
            cold_start_ms: 800,
            keepalive_ms: 420_000,
            min_warm: 0,
            warm_max: 0,
            os: "linux".into(),
            arch: "x86_64".into(),
        };
        assert_eq!(in_gateway(&shared, 1024, 60_000), NanoUsd(1_000_220));
    }

    #[test]
    fn what_is_left_is_paid_where_it_leaves_and_a_start_where_nothing_stays_warm() {
        let mut there = crate::testing::shared("fn", 1_000_000, 900_000, 1);
        let profile = crate::task::Profile { data_out_mb: 2_048, ..crate::testing::task("t").profile() };
        let policy = Policy::default();
        let cost = |s: &Solution| expected_in_gateway(s, s.shared().unwrap(), &profile, &policy);
        let before = cost(&there);
        there.per_gb_out = NanoUsd(90_000_000);
        assert_eq!(cost(&there), before + NanoUsd(180_000_000));
        if let crate::solution::SolutionKind::Shared(shared) = &mut there.kind {
            (shared.price.bills_cold, shared.keepalive_ms, shared.cold_start_ms) = (true, 0, 4_000);
        }
        assert!(cost(&there) > before + NanoUsd(180_000_000));
    }

    #[test]
    fn an_instance_charges_the_share_it_sets_aside() {
        let price = NanoUsd(36_000_000);
        let needs = |cpu, slots| Needs { cpu, slots, ..crate::testing::task("t").needs };
        let cost = |cpu| on_instance(price, 4, &needs(cpu, 1), 1000);
        let of_two = |cpu| on_instance(price, 4, &needs(cpu, 2), 1000);
        assert_eq!(of_two(CpuSetting::Algorithm), NanoUsd(5_000));
        assert_eq!(of_two(CpuSetting::AtLeast(40)), NanoUsd(5_000));
        assert_eq!(of_two(CpuSetting::AtLeast(60)), NanoUsd(6_000));
        assert_eq!(cost(CpuSetting::Exclusive), NanoUsd(10_000));
        assert_eq!(cost(CpuSetting::AtLeast(40)), NanoUsd(4_000));
        assert_eq!(cost(CpuSetting::Algorithm), NanoUsd(2_500));
    }
}
