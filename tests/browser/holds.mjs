// How long a page's main thread is held: the event loop has its turn between two tasks of the browser's.
//
// Tasks are measured in processor time as Chromium's own tracing has it, not by a clock: on a machine that does other
// things, too, a thread that waits for a core holds nobody up by what it does. What waits inside a task is not in it
// either: navigator.gpu.requestAdapter() blocks in Chromium until its GPU process answers, 0.1 to 0.4 s here, in which
// the page's thread works for 1 ms. The time by the clock is told beside it.

/**
 * Watches a page from now on; the result ends that and gives the times between two turns of the event loop, those with
 * the most work first, in milliseconds.
 */
export async function watchHolds(browser, page) {
  const session = await browser.newBrowserCDPSession();
  const events = [];
  session.on("Tracing.dataCollected", ({ value }) => events.push(...value));
  await session.send("Tracing.start", {
    traceConfig: { includedCategories: ["toplevel", "blink.user_timing"], recordMode: "recordContinuously" },
    transferMode: "ReportEvents",
  });
  const mark = (name) => page.evaluate((name) => performance.mark(name).startTime && undefined, name);
  await mark("watched from here");
  return async () => {
    await mark("watched to here");
    const complete = new Promise((done) => session.once("Tracing.tracingComplete", done));
    await session.send("Tracing.end");
    await complete;
    await session.detach();
    // The page is not the only one: parts of the browser are pages in processes of their own.
    const marks = events.filter(({ name }) => name === "watched from here" || name === "watched to here");
    const { pid, tid } = marks[0] ?? {};
    const [from, to] = [marks[0]?.ts, marks[1]?.ts];
    const tasks = events
      .filter((event) => event.pid === pid && event.tid === tid && /RunTask$/.test(event.name))
      .filter(({ ts, tts }) => tts !== undefined && ts >= from && ts <= to)
      .sort((a, b) => a.ts - b.ts);
    if (marks.length < 2 || tasks.length < 100) {
      throw new Error(`Chromium's trace has ${marks.length} marks and ${tasks.length} tasks of the page`);
    }
    // From start to start: of some long tasks nothing but their time is in the trace.
    const holds = tasks.slice(1).map((next, i) => ({
      at: (tasks[i].ts - from) / 1000,
      work: (next.tts - tasks[i].tts) / 1000,
      wall: (next.ts - tasks[i].ts) / 1000,
    }));
    holds.sort((a, b) => b.work - a.work);
    return { tasks: tasks.length, holds };
  };
}
