//! Panics of tasks, which the runtime would swallow: noted by a hook, for the thread that runs the simulation.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Begins to note panics of this thread, and forgets those before.
pub(crate) fn forget() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            SEEN.with_borrow_mut(|seen| {
                seen.get_or_insert(panic.to_string());
            });
            before(panic);
        }));
    });
    SEEN.with_borrow_mut(Option::take);
}

/// The first panic of this thread.
pub(crate) fn seen() -> Option<String> {
    SEEN.with_borrow(Clone::clone)
}
