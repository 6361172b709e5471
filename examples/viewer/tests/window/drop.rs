//! A program from which a file is dragged onto a window: the source's part of XDND, as file managers play it.

use std::path::Path;
use std::time::{Duration, Instant};

use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ClientMessageEvent, ConnectionExt, CreateWindowAux, EventMask, PropMode,
    SELECTION_NOTIFY_EVENT, SelectionNotifyEvent, SelectionRequestEvent, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;
use x11rb::{COPY_DEPTH_FROM_PARENT, CURRENT_TIME};

/// Of the protocol.
const VERSION: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);

/// The dragging program.
struct Source {
    connection: RustConnection,
    target: Window,
    /// What is dragged, as `text/uri-list`.
    list: String,
    list_type: Atom,
}

/// Drags a file or folder to a place on the screen that belongs to `target`, and lets it go there.
pub fn drop_on(display: &str, target: Window, at: (u32, u32), path: &Path) {
    let (connection, screen) = x11rb::connect(Some(display)).unwrap();
    let window = connection.generate_id().unwrap();
    let root = connection.setup().roots[screen].root;
    connection
        .create_window(
            COPY_DEPTH_FROM_PARENT,
            window,
            root,
            0,
            0,
            1,
            1,
            0,
            WindowClass::INPUT_OUTPUT,
            0,
            &CreateWindowAux::new(),
        )
        .unwrap();
    let list = format!("file://{}\r\n", path.display());
    let mut source = Source { connection, target, list, list_type: 0 };
    source.list_type = source.atom("text/uri-list");
    let selection = source.atom("XdndSelection");
    source.connection.set_selection_owner(window, selection, CURRENT_TIME).unwrap();

    let copy = source.atom("XdndActionCopy");
    source.send("XdndEnter", [window, VERSION << 24, source.list_type, 0, 0]);
    source.send("XdndPosition", [window, 0, at.0 << 16 | at.1, CURRENT_TIME, copy]);
    let status = source.wait_for("XdndStatus", true);
    assert_eq!(status[1] & 1, 1, "the window does not take what is dragged over it");
    source.send("XdndDrop", [window, 0, CURRENT_TIME, 0, 0]);
    source.wait_for("XdndFinished", false);
}

impl Source {
    fn atom(&self, name: &str) -> Atom {
        self.connection.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom
    }

    fn send(&self, kind: &str, data: [u32; 5]) {
        let message = ClientMessageEvent::new(32, self.target, self.atom(kind), data);
        self.connection.send_event(false, self.target, EventMask::NO_EVENT, message).unwrap();
        self.connection.flush().unwrap();
    }

    /// Waits for a message of the target, and for it to ask what is dragged if `asked` says so. Gives its data.
    fn wait_for(&self, kind: &str, asked: bool) -> [u32; 5] {
        let kind_atom = self.atom(kind);
        let (mut answer, mut given) = (None, !asked);
        let started = Instant::now();
        loop {
            match self.connection.poll_for_event().unwrap() {
                Some(Event::ClientMessage(message)) if message.type_ == kind_atom => {
                    answer = Some(message.data.as_data32());
                }
                Some(Event::SelectionRequest(request)) => {
                    self.give(&request);
                    given = true;
                }
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(10)),
            }
            if let (Some(answer), true) = (answer, given) {
                return answer;
            }
            assert!(started.elapsed() < PATIENCE, "{kind} was waited for in vain");
        }
    }

    /// Answers what is dragged.
    fn give(&self, request: &SelectionRequestEvent) {
        let known = request.target == self.list_type;
        if known {
            let (window, property) = (request.requestor, request.property);
            let bytes = self.list.as_bytes();
            self.connection
                .change_property8(PropMode::REPLACE, window, property, self.list_type, bytes)
                .unwrap();
        }
        let notify = SelectionNotifyEvent {
            response_type: SELECTION_NOTIFY_EVENT,
            sequence: 0,
            time: request.time,
            requestor: request.requestor,
            selection: request.selection,
            target: request.target,
            property: if known { request.property } else { AtomEnum::NONE.into() },
        };
        self.connection.send_event(false, request.requestor, EventMask::NO_EVENT, notify).unwrap();
        self.connection.flush().unwrap();
    }
}
