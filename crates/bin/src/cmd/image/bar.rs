//! A progress line on a terminal, and Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skein_engine::fetch::Fetching;
use skein_image::Progress;

/// The line.
pub(super) struct Bar {
    bar: indicatif::ProgressBar,
    cancelled: Arc<AtomicBool>,
}

impl Bar {
    pub(super) fn new(bytes: u64, quiet: bool) -> Self {
        let bar = if quiet { indicatif::ProgressBar::hidden() } else { indicatif::ProgressBar::new(bytes) };
        let style = "{wide_bar} {percent:>3}% of {total_bytes} {binary_bytes_per_sec} {eta} left";
        if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cancelled);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(async { tokio::signal::ctrl_c().await }).unwrap_or_default();
                flag.store(true, Ordering::Relaxed);
            }
        });
        Self { bar, cancelled }
    }
    /// What is under way, above the line.
    pub(super) fn says(&self, text: &str) {
        self.bar.println(text);
    }
    /// How far it is, of how much.
    pub(super) fn is_at(&self, done: u64, total: Option<u64>) {
        self.bar.set_length(total.unwrap_or(0));
        self.bar.set_position(done);
    }
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn at(&self, offset: u64) {
        self.bar.set_position(offset);
    }
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

impl Fetching for Bar {
    fn begins(&self, total: Option<u64>) {
        self.bar.set_length(total.unwrap_or(0));
        self.bar.set_position(0);
    }
}
