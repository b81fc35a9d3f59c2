//! Shows a file in the desktop's file manager: by the D-Bus interface that file managers share, and where none has it by
//! opening the folder with whatever the desktop opens folders with.

use std::path::Path;

use gtk::glib::ToVariant as _;
use gtk::prelude::*;
use gtk::{gio, glib};

const NAME: &str = "org.freedesktop.FileManager1";
const OBJECT: &str = "/org/freedesktop/FileManager1";
/// For one that has to be started first.
const ANSWERS_WITHIN_MS: i32 = 10_000;

/// Opens the file's folder with the file chosen, if it can be. Blocks.
///
/// # Errors
/// This desktop has no program for folders; the error is that program's, not the bus's.
pub(super) fn show(file: &Path) -> Result<(), glib::Error> {
    let Err(error) = show_chosen(file) else {
        return Ok(());
    };
    tracing::debug!(%error, "no file manager on the bus, opening the folder");
    let folder = file.parent().unwrap_or(file);
    gio::AppInfo::launch_default_for_uri(&gio::File::for_path(folder).uri(), gio::AppLaunchContext::NONE)
}

fn show_chosen(file: &Path) -> Result<(), glib::Error> {
    let bus = gio::bus_get_sync(gio::BusType::Session, gio::Cancellable::NONE)?;
    // No start-up notification: the window is already here, and the file manager brings its own to the front.
    let parameters = (vec![gio::File::for_path(file).uri().to_string()], "").to_variant();
    bus.call_sync(
        Some(NAME),
        OBJECT,
        NAME,
        "ShowItems",
        Some(&parameters),
        None,
        gio::DBusCallFlags::NONE,
        ANSWERS_WITHIN_MS,
        gio::Cancellable::NONE,
    )?;
    Ok(())
}
