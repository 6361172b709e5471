// How long a page's main thread is held: the event loop has its turn between two tasks of the browser's.
//
// Tasks are measured in processor time as Chromium's own tracing has it, not by a clock: on a machine that does other
// things, too, a thread that waits for a core holds nobody up by what it does. What waits inside a task is not in it
// either: navigator.gpu.requestAdapter() blocks in Chromium until its GPU process answers, 0.1 to 0.4 s here, in which
// the page's thread works for 1 ms. The time by the clock is told beside it.
//
// Processor time, too, depends on the processor and on what its other cores do (they share caches, and some of them a
// core: it doubles then). So the page does a job of a fixed size ten times a second, and tasks are measured in jobs.

// 2 ms of work on a core of its own (Xeon, 2.x GHz).
const ROUNDS = 16;

/** In the page: the job, again and again. */
function startJobs(rounds) {
  const numbers = new Uint32Array(1 << 14);
  let seed = 1;
  const work = () => {
    performance.mark("job");
    for (let round = 0; round < rounds; round += 1) {
      for (let i = 0; i < numbers.length; i += 1) {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
        numbers[i] ^= seed >>> 7;
      }
    }
  };
  window.jobs = setInterval(work, 100);
}

/**
 * Watches a page from now on; the result ends that and gives the fifty longest times between two turns of the event
 * loop, those with the most work first: in milliseconds, and as `jobs`.
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
  await page.evaluate(startJobs, ROUNDS);
  return async () => {
    await page.evaluate(() => clearInterval(window.jobs));
    await mark("watched to here");
    const complete = new Promise((done) => session.once("Tracing.tracingComplete", done));
    await session.send("Tracing.end");
    await complete;
    await session.detach();
    // The page is not the only one: parts of the browser are pages in processes of their own.
    const marks = events.filter(({ name }) => name === "watched from here" || name === "watched to here");
    const { pid, tid } = marks[0] ?? {};
    const [from, to] = [marks[0]?.ts, marks[1]?.ts];
    const ofPage = events.filter((event) => event.pid === pid && event.tid === tid && event.ts >= from && event.ts <= to);
    const tasks = ofPage
      .filter(({ name, tts }) => /RunTask$/.test(name) && tts !== undefined)
      .sort((a, b) => a.ts - b.ts);
    const starts = ofPage.filter(({ name }) => name === "job").map(({ ts }) => ts).sort((a, b) => a - b);
    if (marks.length < 2 || tasks.length < 100 || starts.length < 20) {
      throw new Error(`Chromium's trace has ${marks.length} marks, ${tasks.length} tasks of the page and ${starts.length} jobs`);
    }
    // From start to start: of some long tasks nothing but their time is in the trace.
    const holds = [];
    const jobs = [];
    let next = 0;
    for (const [i, { ts, tts }] of tasks.slice(0, -1).entries()) {
      const end = tasks[i + 1];
      const hold = { at: (ts - from) / 1000, work: (end.tts - tts) / 1000, wall: (end.ts - ts) / 1000 };
      while (starts[next] < ts) next += 1;
      (starts[next] < end.ts ? jobs : holds).push(hold);
    }
    // The jobs nearest in time tell how fast the core was.
    holds.sort((a, b) => b.work - a.work).splice(50);
    for (const hold of holds) {
      const nearest = [...jobs].sort((a, b) => Math.abs(a.at - hold.at) - Math.abs(b.at - hold.at)).slice(0, 9);
      const works = nearest.map(({ work }) => work).sort((a, b) => a - b);
      hold.jobs = hold.work / works[works.length >> 1];
    }
    holds.sort((a, b) => b.jobs - a.jobs);
    return { tasks: tasks.length, holds };
  };
}
