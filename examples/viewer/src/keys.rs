//! Everything that can be done, with its key: the one list that controls, tooltips and the help share.

use eframe::egui::{self, Key, Modifiers};

/// Something that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Run,
    RunBoth,
    Resume,
    Stop,
    EditPrompt,
    EditNegative,
    EditModel,
    NextSeed,
    PreviousSeed,
    Wider,
    Narrower,
    Taller,
    Lower,
    NextRalu,
    PreviousRalu,
    NextCache,
    MoreSteps,
    FewerSteps,
    MoreGuidance,
    LessGuidance,
    ShowMap,
    MoreMap,
    LessMap,
    Heat,
    Paint,
    Erase,
    ClearPaint,
    LargerBrush,
    SmallerBrush,
    ReplaceRegions,
    Back,
    Forward,
    Live,
    Compare,
    WipeLeft,
    WipeRight,
    Save,
    SaveStrip,
    Figures,
    Frames,
    Help,
    Close,
}

/// An action, its key, and what it does in words.
pub struct Binding {
    pub action: Action,
    pub modifiers: Modifiers,
    pub key: Key,
    pub shown: &'static str,
    pub what: &'static str,
}

const fn plain(action: Action, key: Key, shown: &'static str, what: &'static str) -> Binding {
    Binding { action, modifiers: Modifiers::NONE, key, shown, what }
}

const fn shift(action: Action, key: Key, shown: &'static str, what: &'static str) -> Binding {
    Binding { action, modifiers: Modifiers::SHIFT, key, shown, what }
}

const fn command(action: Action, key: Key, shown: &'static str, what: &'static str) -> Binding {
    Binding { action, modifiers: Modifiers::COMMAND, key, shown, what }
}

/// Keys with more modifiers stand before those with fewer, which they would be taken for.
pub const BINDINGS: &[Binding] = &[
    command(Action::Run, Key::Enter, "Ctrl+Enter", "draw the picture"),
    command(Action::SaveStrip, Key::E, "Ctrl+E", "save the strip of stages as one PNG"),
    command(Action::Save, Key::S, "Ctrl+S", "save the picture as a PNG that knows how it was made"),
    command(Action::EditModel, Key::O, "Ctrl+O", "type a model folder or a PNG to open"),
    shift(Action::PreviousSeed, Key::D, "Shift+D", "the seed before"),
    shift(Action::PreviousRalu, Key::A, "Shift+A", "the acceleration before"),
    shift(Action::Narrower, Key::W, "Shift+W", "make it narrower"),
    shift(Action::Lower, Key::H, "Shift+H", "make it lower"),
    shift(Action::FewerSteps, Key::S, "Shift+S", "fewer steps of plain sampling"),
    shift(Action::LessGuidance, Key::G, "Shift+G", "less guidance"),
    shift(Action::Erase, Key::B, "Shift+B", "erase painted regions with the pointer"),
    shift(Action::WipeLeft, Key::ArrowLeft, "Shift+Left", "move the wipe to the left"),
    shift(Action::WipeRight, Key::ArrowRight, "Shift+Right", "move the wipe to the right"),
    plain(Action::Run, Key::R, "R", "draw the picture"),
    plain(Action::RunBoth, Key::V, "V", "draw it with RALU and without, to compare"),
    plain(
        Action::Resume,
        Key::F,
        "F",
        "draw again from the end of stage 1, with the painted regions",
    ),
    plain(Action::Stop, Key::Escape, "Esc", "stop at once"),
    plain(Action::EditPrompt, Key::P, "P", "type the prompt"),
    plain(Action::EditNegative, Key::N, "N", "type what the picture should not show"),
    plain(Action::NextSeed, Key::D, "D", "the next seed"),
    plain(Action::Wider, Key::W, "W", "make it wider"),
    plain(Action::Taller, Key::H, "H", "make it taller"),
    plain(Action::NextRalu, Key::A, "A", "the next acceleration"),
    plain(Action::NextCache, Key::C, "C", "the next temporal cache"),
    plain(Action::MoreSteps, Key::S, "S", "more steps of plain sampling"),
    plain(Action::MoreGuidance, Key::G, "G", "more guidance"),
    plain(Action::ShowMap, Key::M, "M", "show the picture or its tokens"),
    plain(Action::MoreMap, Key::Period, ".", "fade towards the tokens"),
    plain(Action::LessMap, Key::Comma, ",", "fade towards the picture"),
    plain(Action::Heat, Key::E, "E", "show where stage 1 has edges"),
    plain(Action::Paint, Key::B, "B", "paint regions with the pointer"),
    plain(Action::ClearPaint, Key::X, "X", "clear the painted regions"),
    plain(Action::LargerBrush, Key::CloseBracket, "]", "a larger brush"),
    plain(Action::SmallerBrush, Key::OpenBracket, "[", "a smaller brush"),
    plain(
        Action::ReplaceRegions,
        Key::U,
        "U",
        "painted regions instead of the found ones, or beside them",
    ),
    plain(Action::Back, Key::ArrowLeft, "Left", "a step back"),
    plain(Action::Forward, Key::ArrowRight, "Right", "a step on"),
    plain(Action::Live, Key::End, "End", "the latest step"),
    plain(Action::Compare, Key::L, "L", "wipe between plain and RALU"),
    plain(Action::Figures, Key::I, "I", "show or hide the figures"),
    plain(Action::Frames, Key::T, "T", "draw all the time, and measure frames"),
    command(Action::Close, Key::Q, "Ctrl+Q", "close the window"),
    plain(Action::Help, Key::F1, "F1", "show all keys"),
];

/// The tooltip of an action.
pub fn tip(action: Action) -> String {
    let mut found = BINDINGS.iter().filter(|binding| binding.action == action);
    let Some(first) = found.next() else { return String::new() };
    let keys = found.fold(first.shown.to_owned(), |keys, more| format!("{keys}, {}", more.shown));
    let mut what = first.what.to_owned();
    if let Some(letter) = what.get_mut(..1) {
        letter.make_ascii_uppercase();
    }
    format!("{what}  ({keys})")
}

/// What the keys that were pressed ask for.
pub fn pressed(context: &egui::Context) -> Vec<Action> {
    // Letters belong to a field that has the focus; Escape leaves it.
    let typing = context.egui_wants_keyboard_input();
    context.input_mut(|input| {
        let mut actions = Vec::new();
        for binding in BINDINGS {
            let for_text = typing && binding.modifiers != Modifiers::COMMAND;
            if !for_text {
                // Between two frames a key may be pressed more than once.
                let times = input.count_and_consume_key(binding.modifiers, binding.key);
                actions.extend(std::iter::repeat_n(binding.action, times));
            }
        }
        if !typing && !actions.is_empty() {
            // A letter that was a key is no text for the field that it may have chosen.
            input.events.retain(|event| !matches!(event, egui::Event::Text(_)));
        }
        actions
    })
}

/// The list of all keys, as a window.
pub fn help(context: &egui::Context, open: &mut bool) {
    egui::Window::new("Keys").open(open).resizable(false).collapsible(false).show(context, |ui| {
        egui::ScrollArea::vertical().max_height(560.0).show(ui, |ui| {
            egui::Grid::new("keys").num_columns(2).spacing([18.0, 3.0]).show(ui, |ui| {
                for binding in BINDINGS {
                    ui.colored_label(crate::theme::AMBER, binding.shown);
                    ui.label(binding.what);
                    ui.end_row();
                }
            });
        });
        ui.small("Drop a model folder or a picture that ralu made on the window to open it.");
    });
}
