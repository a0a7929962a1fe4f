"use strict";
// Shows /status.json, once a second. Everything that comes from outside is set as text, never as markup.

const ASK_EVERY_MS = 1000, GIVE_UP_MS = 5000, WORST_SHOWN = 12, HISTORY_MAX = 300;
const COLOURS = { well: "#1b8a4b", note: "#2f7fbf", attention: "#d98a00", act: "#d0342c" };
const by = (id) => document.getElementById(id);
const history = [];
let showAll = false, last = null, answeredMs = 0;

function set(id, text) {
  const node = typeof id === "string" ? by(id) : id;
  if (node.textContent !== text) node.textContent = text;  // an unchanged status must not be read out again
}

function make(name, text, properties) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  return Object.assign(node, properties);
}

const UNITS = [[172800, 86400, "d", 1], [5400, 3600, "h", 1], [90, 60, "min", 0]];
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "?";
  for (const [least, unit, word, digits] of UNITS) if (seconds >= least) return `${(seconds / unit).toFixed(digits)} ${word}`;
  return `${seconds.toFixed(0)} s`;
}
const count = (number) => number.toLocaleString("en").replaceAll(",", " ");
const rate = (number) => (number === null ? "?" : number.toFixed(number < 10 ? 1 : 0));
const kept = (document, seconds) => (document.retention_ms === null ? "for ever" : duration(seconds));
const drained = (numbers) =>
  ({ in: duration(numbers.drain_seconds), done: "-", unknown: "?" })[numbers.drain] ?? numbers.drain;

function ranges(numbers) {
  const runs = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run && number === run[1] + 1) run[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(", ");
}

// -- what is so, and what to do

function headline(finding) {
  by("headline").dataset.level = finding.level;
  set("title", finding.title);
  set("text", finding.text);
  const link = by("next").firstChild, target = finding.page && `operations/${finding.page}`;
  if (!target) by("next").replaceChildren();
  else if (!link || link.getAttribute("href") !== target) {
    by("next").replaceChildren(make("a", "What to do, step by step", { href: target }));
  }
  set("command", finding.command ?? "");
  document.title = `${{ act: "✕ ", attention: "! " }[finding.level] ?? ""}${finding.title} - Spillway`;
  const circle = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='${COLOURS[finding.level]}'/></svg>`;
  by("icon").href = `data:image/svg+xml,${encodeURIComponent(circle)}`;
}

function todo(findings) {
  const items = findings.map((finding) => {
    const item = make("li"), what = make("div");
    item.dataset.level = finding.level;
    what.append(make("strong", finding.title), make("p", finding.text));
    if (finding.command) what.append(make("code", finding.command), " ");
    if (finding.page) what.append(make("a", `page: ${finding.page.replaceAll("-", " ")}`, { href: `operations/${finding.page}` }));
    const sign = make("span", undefined, { className: "sign" });
    sign.setAttribute("aria-hidden", "true");
    item.append(sign, what);
    return item;
  });
  const focused = document.activeElement, selection = document.getSelection();
  const marked = !selection.isCollapsed && by("todo").contains(selection.anchorNode);
  if (marked || (focused && by("todo").contains(focused))) return;  // not from under somebody's finger
  by("todo").replaceChildren(...items);
}

// -- the picture

const TANK_TOP = 30, TANK_BOTTOM = 186, LEAST_S = 5;
const MARKS = [[60, "1 min"], [3600, "1 h"], [86400, "1 d"], [604800, "7 d"]];
function height(ageS, fullS) {  // of 0 to 1, on a logarithmic scale
  return Math.min(1, Math.log1p(ageS / LEAST_S) / Math.log1p(fullS / LEAST_S));
}
const levelY = (share) => TANK_BOTTOM - share * (TANK_BOTTOM - TANK_TOP);

function svg(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function marks(fullS, forEver) {
  const drawn = MARKS.filter(([seconds]) => seconds < fullS * 0.7).map(([seconds, word]) => [seconds, word, "mark"]);
  if (!forEver) drawn.push([fullS, `${duration(fullS)}: deleted`, "mark spill"]);
  by("marks").replaceChildren(...drawn.flatMap(([seconds, word, kind]) => {
    const y = levelY(height(seconds, fullS));
    return [svg("line", { x1: 114, x2: 246, y1: y, y2: y, class: kind }), svg("text", { x: 242, y: y - 3, "text-anchor": "end" }, word)];
  }));
}

function picture(status) {
  const pipeline = status.pipeline, total = pipeline.total;
  const forEver = pipeline.retention_ms === null, fullS = forEver ? 2592000 : pipeline.retention_ms / 1000;
  const shut = status.s3.state === "failing" || status.s3.state === "silent";
  marks(fullS, forEver);
  by("water").setAttribute("y", levelY(total.lag_records ? height(total.lag_seconds ?? 0, fullS) : 0));
  by("flow-in").classList.toggle("flowing", total.arriving_per_second > 0);
  by("fall").classList.toggle("flowing", total.arriving_per_second > 0);
  by("flow-out").classList.toggle("flowing", !shut && total.committed_per_second > 0);
  by("picture").classList.toggle("shut", shut);
  set("in", `${rate(total.arriving_per_second)} /s in`);
  set("out", shut ? "shut" : `${rate(total.committed_per_second)} /s out`);
  set("picture-says", `${rate(total.arriving_per_second)} payloads a second come in, ${rate(total.committed_per_second)} are ` +
    `stored. ${total.lag_records} wait, the oldest for ${duration(total.lag_seconds)}. The way to S3 is ${shut ? "shut" : "open"}.`);
  set("lag", count(total.lag_records));
  set("oldest", total.lag_records ? duration(total.lag_seconds) : "-");
  set("clock", status.retention);
  set("drain", shut && total.lag_records ? "once S3 is back" : drained(total));
}

function draw(lag) {
  history.push([Date.now(), lag]);
  if (history.length > HISTORY_MAX) history.shift();
  const [from, to] = [history[0][0], history.at(-1)[0]], most = Math.max(1, ...history.map(([, each]) => each));
  const points = history.map(([at, each]) => `${(to > from ? (600 * (at - from)) / (to - from) : 0).toFixed(1)},${(46 - (44 * each) / most).toFixed(1)}`);
  by("line").setAttribute("points", points.join(" "));
  set("history-says", `at most ${count(most === 1 ? Math.max(...history.map(([, each]) => each)) : most)} in ${duration((to - from) / 1000)}`);
}

// -- tables and lists

function partitions(pipeline) {
  const holder = new Map();
  pipeline.members.forEach((member) => member.partitions.forEach((each) => holder.set(each, member.host)));
  const sorted = [...pipeline.partitions];
  const worstFirst = (a, b) => (b.lag_seconds ?? Infinity) - (a.lag_seconds ?? Infinity) || b.lag_records - a.lag_records;
  if (!showAll && sorted.length > WORST_SHOWN) sorted.sort(worstFirst).splice(WORST_SHOWN);
  const body = by("partitions");
  while (body.rows.length > sorted.length) body.deleteRow(-1);
  sorted.forEach((each, index) => {
    const row = body.rows[index] ?? body.insertRow();
    const cells = [each.partition, count(each.lag_records), each.lag_records ? duration(each.lag_seconds) : "-",
      kept(pipeline, each.retention_left_seconds), rate(each.arriving_per_second), rate(each.committed_per_second),
      drained(each), holder.get(each.partition) ?? "nobody"];
    cells.forEach((text, column) => set(row.cells[column] ?? row.appendChild(make("td", "", { className: column > 3 ? "more" : "" })), `${text}`));
    const left = each.retention_left_seconds, age = each.lag_seconds;
    row.dataset.level = left === null || !each.lag_records ? "" : age > left && left < 86400 ? "act" : age * 3 > left ? "attention" : "";
  });
  const all = pipeline.partitions.length;
  by("all").hidden = all <= WORST_SHOWN;
  set("all", showAll ? "Show the worst only" : `Show all ${all}`);
  by("all").setAttribute("aria-expanded", `${showAll}`);
  set("partitions-say", showAll || all <= WORST_SHOWN ? `${all} partitions.` : `The ${WORST_SHOWN} of ${all} whose oldest payload waits longest.`);
}

function members(pipeline, process) {
  const own = process.partitions.join();
  const items = pipeline.members.map((member) => {
    const item = make("li");
    item.append(make("strong", member.host), ` ${member.client_id}: `, member.partitions.length ? `partitions ${ranges(member.partitions)}` : "no partition");
    if (own && member.partitions.join() === own) item.append(make("span", " (this process)", { className: "here" }));
    return item;
  });
  by("members").replaceChildren(...(items.length ? items : [make("li", "Nobody is in the group.")]));
}

function dead(letters) {
  const total = letters.in_topic === null ? "How many are in the topic is not known." : `${count(letters.in_topic)} in the topic.`;
  set("dead-total", letters.held ? `${total} ${count(letters.held)} wait to be written.` : total);
  const reasons = Object.entries(letters.by_reason);
  by("dead").replaceChildren(...reasons.map(([reason, number]) => make("li", `${reason}: ${count(number)} by this process`)));
}

function s3(state, process) {
  set("s3-words", state.words);
  set("s3-since", state.state === "recovering" ? `after ${state.reason} from ${state.since} on` : state.since ? `since ${state.since}, for ${duration(state.for_seconds)} (${state.reason})`
    : state.state === "silent" ? `for ${duration(state.silent_seconds)}` : "");
  set("s3-message", state.message ?? "");
  set("s3-puts", `${process.in_flight} puts under way, of ${process.in_flight_limit} that may be; ${count(process.stored)} objects stored by this process.`);
}

// -- the loop

function show(status) {
  headline(status.findings[0]);
  todo(status.findings.slice(1).length ? status.findings.slice(1) : [{ level: "well", title: "Nothing else.", text: "" }]);
  s3(status.s3, status.process);
  dead(status.dead_letters);
  const pipeline = status.pipeline;
  if (pipeline === null) return;
  set("where", `topic ${pipeline.topic}, group ${pipeline.group}: ${pipeline.state.toLowerCase()}, ${pipeline.members.length} member${pipeline.members.length === 1 ? "" : "s"}`);
  picture(status);
  if (!last || last.pipeline === null || last.pipeline.at !== pipeline.at) draw(pipeline.total.lag_records);
  partitions(pipeline);
  members(pipeline, status.process);
}

function fresh() {
  const seconds = (Date.now() - answeredMs) / 1000;
  if (last === null) return;
  set("fresh", seconds > 3 ? `no answer for ${duration(seconds)}` : last.pipeline === null ? "live; Kafka has not answered yet"
    : `live; Kafka was asked ${duration(last.age_seconds)} ago`);
  if (seconds > 5) {
    headline({ level: "act", title: "This uploader does not answer", page: "process-restarts",
      text: "It ended, or the way to it is cut; the others go on. What is shown below is what it said last." });
  }
}

async function ask() {
  try {
    const answer = await fetch("status.json", { cache: "no-store", signal: AbortSignal.timeout(GIVE_UP_MS) });
    if (!answer.ok) throw new Error(`${answer.status}`);
    const status = await answer.json();
    answeredMs = Date.now();
    show(status);
    last = status;
  } catch (error) {
    if (answeredMs && Date.now() - answeredMs < 2000) console.error(error);  // a fault of this script: say it
  }
  fresh();
  setTimeout(ask, ASK_EVERY_MS);
}

by("all").addEventListener("click", () => {
  showAll = !showAll;
  if (last && last.pipeline) partitions(last.pipeline);
});
ask();
