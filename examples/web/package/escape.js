// Text from servers and models, made safe to show, as the engine does it with its own messages.

/** `text` with control characters and the marks and overrides of bidirectional text as escapes: `\n`, `\u{202e}`. */
export function escape(text) {
  const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
  return String(text).replace(
    /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu,
    (c) => short[c] ?? `\\u{${c.codePointAt(0).toString(16)}}`,
  );
}
