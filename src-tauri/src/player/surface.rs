//! Where the picture is in the window: a native widget below the transparent page.
//!
//! One `gtk::Overlay` holds, from below: black, the widget of `gtksink` at the rectangle that the page reports, and the
//! page. Clicks and keys go to the page; its controls cover the picture. All of it lives on the GTK main thread; a
//! [`Surface`] is a handle that any thread may use. Where someone has set the variables that make the page opaque (a
//! common remedy on NVIDIA), the widget is put above the page instead and leaves a strip below it for the controls.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gtk::gdk;
use gtk::glib as gtk_glib;
use gtk::prelude::*;

use super::PlayerError;
use super::feed::lock;
use super::pipeline::{make, prepare};
use super::screen::Screen;
use crate::dto::VideoRect;

/// Setting one of these makes WebKit paint the page opaque.
const OPAQUE_PAGE_VARIABLES: [&str; 2] = [
    "WEBKIT_DISABLE_DMABUF_RENDERER",
    "WEBKIT_DISABLE_COMPOSITING_MODE",
];
/// Height that is left to the controls below a picture that lies above the page, in CSS pixels: the page's control bar.
const CONTROL_STRIP_PX: f64 = 96.0;

/// Which of the two lies on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stacking {
    /// As designed: the page's controls cover the picture.
    PageAbove,
    /// Fallback for an opaque page.
    VideoAbove,
}

impl Stacking {
    /// What fits the environment of this process.
    #[must_use]
    pub fn of_environment() -> Self {
        let is_set =
            |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        if OPAQUE_PAGE_VARIABLES.iter().any(is_set) {
            Self::VideoAbove
        } else {
            Self::PageAbove
        }
    }
}

/// Handle to the picture's place.
#[derive(Debug, Clone)]
pub struct Surface {
    screen: Screen,
    rect: Arc<Mutex<Option<VideoRect>>>,
}

thread_local! {
    /// The widgets, on the GTK main thread.
    static WIDGETS: RefCell<Option<Widgets>> = const { RefCell::new(None) };
}

struct Widgets {
    overlay: gtk::Overlay,
    video: gtk::Widget,
}

impl Surface {
    /// Puts the picture's widget under the page in `vbox`, which holds the page as its only child. GTK main thread only.
    ///
    /// # Errors
    /// An element is missing, or the window has no page.
    pub fn install(vbox: &gtk::Box, stacking: Stacking) -> Result<Self, PlayerError> {
        prepare()?;
        let sink = make("gtksink")?;
        let screen = Screen::around(&sink)?;
        let video = widget_of(&sink)?;
        let page = vbox
            .children()
            .into_iter()
            .next()
            .ok_or(PlayerError::Library("the window has no page".into()))?;
        let surface = Self {
            screen,
            rect: Arc::default(),
        };
        let overlay = surface.stack(vbox, &page, &video, stacking);
        WIDGETS.set(Some(Widgets { overlay, video }));
        Ok(surface)
    }

    /// The sink for the player.
    #[must_use]
    pub fn sink(&self) -> gst::Element {
        self.screen.sink()
    }

    /// Moves the picture; `None` hides it. Any thread.
    pub fn set_rect(&self, rect: Option<VideoRect>) {
        *lock(&self.rect) = rect;
        gtk_glib::MainContext::default().invoke(move || {
            WIDGETS.with_borrow(|widgets| {
                let Some(widgets) = widgets else { return };
                widgets.video.set_visible(rect.is_some());
                widgets.overlay.queue_resize();
            });
        });
    }

    /// Tells `reply` where on the screen the picture is: x, y, width and height in pixels, without the bars beside it.
    /// `None` while none is shown. Any thread; the reply comes on the GTK main thread.
    pub fn ask_picture_area(&self, reply: impl FnOnce(Option<[f64; 4]>) + Send + 'static) {
        let screen = self.screen.clone();
        gtk_glib::MainContext::default().invoke(move || {
            let widget = WIDGETS.with_borrow(|widgets| Some(widgets.as_ref()?.video.clone()));
            let area = widget.filter(gtk::Widget::is_visible).and_then(|widget| {
                let size = screen.picture_size()?;
                Some(fitted(area_on_screen(&widget)?, size))
            });
            reply(area);
        });
    }

    fn stack(
        &self,
        vbox: &gtk::Box,
        page: &gtk::Widget,
        video: &gtk::Widget,
        stacking: Stacking,
    ) -> gtk::Overlay {
        vbox.remove(page);
        let overlay = gtk::Overlay::new();
        overlay.add(&black());
        let layers = match stacking {
            Stacking::PageAbove => [video, page],
            Stacking::VideoAbove => [page, video],
        };
        for layer in layers {
            overlay.add_overlay(layer);
        }
        overlay.set_overlay_pass_through(video, true);
        for widget in [page, video] {
            widget.set_halign(gtk::Align::Fill);
            widget.set_valign(gtk::Align::Fill);
        }
        if stacking == Stacking::PageAbove {
            repaint_whole_heights(page);
        }
        let (rect, video_at) = (Arc::clone(&self.rect), video.clone());
        overlay.connect_get_child_position(move |overlay, child| {
            if *child != video_at {
                return None;
            }
            let rect = (*lock(&rect))?;
            Some(place(rect, stacking, overlay.scale_factor()))
        });
        vbox.pack_start(&overlay, true, true, 0);
        overlay.show_all();
        video.hide();
        page.grab_focus();
        overlay
    }
}

/// Lets every repaint of the page reach from its upper to its lower edge, by a strip of one pixel.
///
/// Without a GPU WebKitGTK 2.50 paints the page from shared memory, on a canvas that it turned upside down, and forgets to
/// turn the box around what is to be painted, too. A frame of the video repaints the picture's rectangle, which begins
/// below the page's header: so much of the page was missing at the lower edge, where the controls are. A box as high as
/// the page is the same either way.
fn repaint_whole_heights(page: &gtk::Widget) {
    page.connect_realize(|page| {
        let Some(clock) = page.frame_clock() else {
            return;
        };
        let page = page.downgrade();
        // Comes before each repaint, and not while nothing moves.
        clock.connect_before_paint(move |_| {
            if let Some(page) = page.upgrade() {
                page.queue_draw_area(0, 0, 1, page.allocated_height());
            }
        });
    });
}

/// What shows where neither page nor picture paint.
fn black() -> gtk::DrawingArea {
    let area = gtk::DrawingArea::new();
    area.connect_draw(|_, context| {
        context.set_source_rgb(0.0, 0.0, 0.0);
        if context.paint().is_err() {
            tracing::debug!("the background could not be painted");
        }
        gtk_glib::Propagation::Proceed
    });
    area
}

/// The page's rectangle in the overlay's own units. They differ from CSS pixels where the page is zoomed.
fn place(rect: VideoRect, stacking: Stacking, scale_factor: i32) -> gdk::Rectangle {
    let unit = if rect.scale > 0.0 {
        rect.scale / f64::from(scale_factor.max(1))
    } else {
        1.0
    };
    let strip = if stacking == Stacking::VideoAbove {
        CONTROL_STRIP_PX
    } else {
        0.0
    };
    let whole = |length: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the cast saturates, and GTK clips what is off the window"
        )]
        let length = (length * unit).round() as i32;
        length
    };
    let (width, height) = (whole(rect.width), whole((rect.height - strip).max(1.0)));
    gdk::Rectangle::new(whole(rect.x), whole(rect.y), width.max(1), height.max(1))
}

/// A widget's place on the screen, in pixels. Wayland tells no window its place: there it counts from the window's.
fn area_on_screen(widget: &gtk::Widget) -> Option<[f64; 4]> {
    let window = widget.toplevel()?;
    let (x, y) = widget.translate_coordinates(&window, 0, 0)?;
    let (_, left, top) = window.window()?.origin();
    let (width, height) = (widget.allocated_width(), widget.allocated_height());
    let factor = f64::from(widget.scale_factor());
    Some([left + x, top + y, width, height].map(|side| f64::from(side) * factor))
}

/// The largest area of a picture's proportions in the middle of another: where the sink paints.
fn fitted([x, y, width, height]: [f64; 4], (picture_width, picture_height): (f64, f64)) -> [f64; 4] {
    let scale = (width / picture_width).min(height / picture_height);
    let (fit_width, fit_height) = (picture_width * scale, picture_height * scale);
    [
        x + (width - fit_width) / 2.0,
        y + (height - fit_height) / 2.0,
        fit_width,
        fit_height,
    ]
}

/// The GTK widget that `gtksink` paints. GTK main thread only.
///
/// GStreamer's bindings and GTK's stand on two generations of glib-rs, which share no Rust types; what they share is the
/// C object.
fn widget_of(sink: &gst::Element) -> Result<gtk::Widget, PlayerError> {
    use gst::glib::translate::ToGlibPtr as _;
    use gtk_glib::translate::FromGlibPtrFull as _;

    let object = gst::prelude::ObjectExt::property::<Option<gst::glib::Object>>(sink, "widget");
    let object = object.filter(|object| gst::prelude::ObjectExt::type_(object).is_a(gtk_widget_type()));
    let object = object.ok_or(PlayerError::Library("gtksink has no widget".into()))?;
    let owned: *mut gst::glib::gobject_ffi::GObject = object.to_glib_full();
    #[expect(
        unsafe_code,
        reason = "the one place where an object crosses from one glib-rs to the other"
    )]
    // SAFETY: `owned` is one strong reference, given away here and dropped by the new owner alone. Its type was checked
    // to be a GtkWidget, both bindings use the same libgobject of this process, and this is the GTK main thread.
    let widget = unsafe { gtk::Widget::from_glib_full(owned.cast::<gtk::ffi::GtkWidget>()) };
    Ok(widget)
}

/// `GtkWidget` as GStreamer's glib-rs names it.
fn gtk_widget_type() -> gst::glib::Type {
    gst::glib::Type::from_name("GtkWidget").unwrap_or(gst::glib::Type::INVALID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_placed_in_the_windows_own_units() {
        let rect = VideoRect {
            x: 10.0,
            y: 20.0,
            width: 640.0,
            height: 360.0,
            scale: 1.0,
        };
        let at = |rect, stacking, factor| {
            let place = place(rect, stacking, factor);
            (place.x(), place.y(), place.width(), place.height())
        };
        assert_eq!(at(rect, Stacking::PageAbove, 1), (10, 20, 640, 360));
        let zoomed = VideoRect { scale: 3.0, ..rect };
        assert_eq!(at(zoomed, Stacking::PageAbove, 2), (15, 30, 960, 540));
        assert_eq!(at(rect, Stacking::VideoAbove, 1), (10, 20, 640, 264));
        let unreal = VideoRect {
            width: f64::NAN,
            height: -5.0,
            scale: 0.0,
            ..rect
        };
        assert_eq!(at(unreal, Stacking::PageAbove, 1), (10, 20, 1, 1));
    }
}
