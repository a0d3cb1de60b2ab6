//! Instances and items as bytes that `prelude.luau` makes tables of: one call for all of them.
//!
//! A record is a block of numbers (64-bit floats; absent: not a number), among them the bytes of each of its texts
//! (absent: -1); then the texts; then what it has any number of. The order is the prelude's.

use mlua::{Buffer, Lua};
use skein_domain::decide::wanted::{AskedInstance, AskedItem};

/// Records, one after the other.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    pub(super) fn buffer(&self, lua: &Lua) -> mlua::Result<Buffer> {
        lua.create_buffer(&self.0)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn number(&mut self, number: f64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(float(count));
    }

    fn bytes_of(&mut self, text: Option<&str>) {
        self.number(text.map_or(-1.0, |text| float(text.len())));
    }

    fn text(&mut self, text: Option<&str>) {
        self.0.extend_from_slice(text.unwrap_or_default().as_bytes());
    }

    /// Places in a list, from 0.
    pub(super) fn places(&mut self, places: impl Iterator<Item = u32>) {
        for place in places {
            self.number(f64::from(place));
        }
    }

    pub(super) fn instance(&mut self, asked: &AskedInstance) {
        let AskedInstance { slots, attempts, cpus, cpu_percent, memory_mb, memory_free_mb, storage_free_mb, .. } =
            asked;
        for number in [slots, attempts, cpus, cpu_percent, memory_mb, memory_free_mb, storage_free_mb] {
            self.number(f64::from(*number));
        }
        self.number(asked.price_per_hour.usd());
        self.number(f64::from(u8::from(asked.machine)));
        self.number(f64::from(u8::from(asked.free_since.is_some())));
        let (kind, role) = (asked.instance_type.as_deref(), asked.role.as_deref());
        let texts = [Some(asked.id.as_str()), Some(asked.solution.as_str()), kind, role];
        for text in texts {
            self.bytes_of(text);
        }
        self.count(asked.held_by.len());
        for text in texts {
            self.text(text);
        }
        for session in &asked.held_by {
            let session = session.to_string();
            self.bytes_of(Some(&session));
            self.text(Some(&session));
        }
    }

    pub(super) fn item(&mut self, asked: &AskedItem) {
        let AskedItem { memory_mb, storage_mb, attempts, .. } = asked;
        self.number(f64::from(*memory_mb));
        self.number(f64::from(*storage_mb));
        self.number(f64::from(asked.urgency));
        self.number(whole(asked.since.0 / 1000));
        self.number(f64::from(*attempts));
        self.number(asked.expected_run_ms.map_or(f64::NAN, large));
        self.number(asked.typical_run_ms.map_or(f64::NAN, f64::from));
        self.count(asked.resources.len());
        let (key, session) = (asked.item.to_string(), asked.item.session().to_string());
        let group_on = asked.group_on.as_ref().map(skein_domain::InstanceId::as_str);
        let task = [Some(key.as_str()), Some(&*asked.task), Some(session.as_str())];
        let whose = [Some(asked.user.as_str()), asked.group.as_deref(), group_on];
        for text in task.into_iter().chain(whose) {
            self.bytes_of(text);
        }
        for text in task.into_iter().chain(whose) {
            self.text(text);
        }
        for (name, amount) in &asked.resources {
            self.bytes_of(Some(name));
            self.number(large(*amount));
            self.text(Some(name));
        }
        self.number(f64::from(asked.profile));
    }
}

/// A number as Luau has numbers: exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "Luau has no other numbers")]
fn large(number: u64) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "Luau has no other numbers")]
fn whole(number: i64) -> f64 {
    number as f64
}

fn float(count: usize) -> f64 {
    u64::try_from(count).map_or(f64::MAX, large)
}
