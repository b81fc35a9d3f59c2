//! The one window: a transparent page over the picture.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gtk::gdk;
use gtk::prelude::*;
use tauri::{App, WebviewUrl, WebviewWindow, WebviewWindowBuilder};

use crate::player::surface::{Stacking, Surface};

/// The window's name, which the capability grants its commands to.
pub(super) const LABEL: &str = "main";
/// Fits a laptop's screen with the node panel beside a 16:9 picture.
const SIZE: (f64, f64) = (1280.0, 800.0);
/// The smallest that the page is laid out for.
const MIN_SIZE: (f64, f64) = (720.0, 480.0);

/// What the window manager does to the window, kept where any thread can look.
#[derive(Debug, Clone, Default)]
pub(crate) struct WindowFlags {
    hidden: Arc<AtomicBool>,
    fullscreen: Arc<AtomicBool>,
}

impl WindowFlags {
    /// Nobody sees the window.
    pub(crate) fn is_hidden(&self) -> bool {
        self.hidden.load(Ordering::Relaxed)
    }

    pub(crate) fn is_fullscreen(&self) -> bool {
        self.fullscreen.load(Ordering::Relaxed)
    }

    fn note(&self, state: gdk::WindowState) {
        self.hidden.store(
            state.intersects(gdk::WindowState::ICONIFIED | gdk::WindowState::WITHDRAWN),
            Ordering::Relaxed,
        );
        self.fullscreen
            .store(state.contains(gdk::WindowState::FULLSCREEN), Ordering::Relaxed);
    }
}

/// Opens the window with the picture's place in it.
pub(super) fn open(app: &App) -> Result<(WebviewWindow, Surface, WindowFlags), Box<dyn std::error::Error>> {
    let window = WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App("index.html".into()))
        .title("V-Stack")
        .inner_size(SIZE.0, SIZE.1)
        .min_inner_size(MIN_SIZE.0, MIN_SIZE.1)
        .transparent(true)
        .devtools(cfg!(debug_assertions))
        .build()?;
    let surface = Surface::install(&window.default_vbox()?, Stacking::of_environment())?;
    let flags = WindowFlags::default();
    let noted = flags.clone();
    window.gtk_window()?.connect_window_state_event(move |_, event| {
        noted.note(event.new_window_state());
        gtk::glib::Propagation::Proceed
    });
    Ok((window, surface, flags))
}
