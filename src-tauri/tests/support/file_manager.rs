//! A file manager on the screen's bus, as far as other programs can tell: it hears what it is asked to show.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use gtk::{gio, glib};

use super::PATIENCE;
use super::screen::Screen;

const NAME: &str = "org.freedesktop.FileManager1";
const OBJECT: &str = "/org/freedesktop/FileManager1";
const INTERFACE: &str = "<node><interface name='org.freedesktop.FileManager1'><method name='ShowItems'>\
    <arg type='as' direction='in'/><arg type='s' direction='in'/></method></interface></node>";

pub struct FileManager {
    asked: Receiver<Vec<String>>,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
}

impl FileManager {
    /// Returns when programs on the screen find it.
    pub fn start(screen: &Screen) -> Self {
        let (tell, asked) = channel();
        let (tell_ready, ready) = channel();
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let (address, running) = (screen.bus_address().to_owned(), main_loop.clone());
        let thread = std::thread::spawn(move || {
            let serve = || serve(&address, tell, tell_ready, &running);
            context.with_thread_default(serve).expect("a thread of its own");
        });
        ready.recv_timeout(PATIENCE).expect("its name on the bus");
        Self {
            asked,
            main_loop,
            thread: Some(thread),
        }
    }

    /// The files that it was asked to show, as URIs; waits for it.
    pub fn asked(&self) -> Vec<String> {
        self.asked
            .recv_timeout(PATIENCE)
            .expect("nothing was to be shown")
    }
}

impl Drop for FileManager {
    fn drop(&mut self) {
        self.main_loop.quit();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()));
    }
}

fn serve(address: &str, tell: Sender<Vec<String>>, tell_ready: Sender<()>, running: &glib::MainLoop) {
    let flags =
        gio::DBusConnectionFlags::AUTHENTICATION_CLIENT | gio::DBusConnectionFlags::MESSAGE_BUS_CONNECTION;
    let bus = gio::DBusConnection::for_address_sync(address, flags, None, gio::Cancellable::NONE);
    let bus = bus.expect("the screen's bus");
    let node = gio::DBusNodeInfo::for_xml(INTERFACE).expect("an interface");
    let interface = node.lookup_interface(NAME).expect("the interface");
    let object = bus.register_object(
        OBJECT,
        &interface,
        move |_, _, _, _, _, parameters, call| {
            let (files, _) = parameters
                .get::<(Vec<String>, String)>()
                .expect("files and an id");
            // The test may have ended.
            let _ = tell.send(files);
            call.return_value(None);
        },
        |_, _, _, _, _| unreachable!("it has no properties"),
        |_, _, _, _, _, _| false,
    );
    object.expect("its object on the bus");
    let ready = move |_, _: &str| {
        let _ = tell_ready.send(());
    };
    gio::bus_own_name_on_connection(&bus, NAME, gio::BusNameOwnerFlags::NONE, ready, |_, _| {});
    running.run();
}
