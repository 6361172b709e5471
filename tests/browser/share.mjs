// Which tests run: those with a word in their names; several processes share them.

import { openSync, closeSync } from "node:fs";
import { join } from "node:path";

/**
 * Of `names` those that have `word` in them. With the environment variable SHARE, an empty folder that several processes
 * are given, each name is given to the process that asks for it first.
 */
export function* chosen(names, word) {
  const { SHARE: folder } = process.env;
  for (const name of names.filter((name) => name.includes(word))) {
    if (!folder || isFirst(join(folder, encodeURIComponent(name)))) yield name;
  }
}

/** Whether nobody has made that file before. */
function isFirst(file) {
  try {
    closeSync(openSync(file, "wx"));
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  }
}
