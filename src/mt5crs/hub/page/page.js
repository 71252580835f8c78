"use strict";
// Every text of others is set as text, never as markup. null is "not known", which is never shown as none.

const gateways = new Map();
let trades = [];
let heard = 0, opened = false;
let may = { halt: null, acknowledge: null }; // null: not known yet
const byId = (id) => document.getElementById(id);

function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) if (value !== null) made.setAttribute(name, value);
  for (const child of children.flat()) if (child !== null) made.append(child);
  return made;
}
function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
const unknown = () => el("span", { class: "unknown" }, "unknown");
const pill = (text, kind) => el("span", { class: "pill" + (kind ? " " + kind : "") }, text);
const told = (value, format) => (value === null || value === undefined ? unknown() : format ? format(value) : String(value));
const number = (digits) => (value) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const plain = (value) => value.toLocaleString("en", { maximumFractionDigits: 5 });
const money = (currency) => (value) => el("span", { class: value < 0 ? "bad" : null }, number(2)(value) + (currency ? " " + currency : ""));
const signed = (currency) => (value) => el("span", { class: value < 0 ? "bad" : value > 0 ? "good" : null }, (value > 0 ? "+" : "") + number(2)(value) + " " + currency);
const brokerTime = (msc) => new Date(msc).toISOString().replace("T", " ").slice(0, 19);
const clock = (seconds) => new Date(seconds * 1000).toLocaleString("sv"); // year first, the reader's own time
function span(seconds) {
  if (seconds < 10) return seconds.toFixed(1) + " s";
  if (seconds < 120) return Math.round(seconds) + " s";
  if (seconds < 7200) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " days";
}
// An age goes on while nothing arrives.
function age(seconds) {
  if (seconds === null || seconds === undefined) return unknown();
  const shown = el("span", { "data-since": String(Date.now() - seconds * 1000) }, span(seconds));
  return el("span", {}, shown, " ago");
}
function figures(...pairs) {
  return el("dl", {}, pairs.map(([name, value, kind]) => el("div", {}, el("dt", {}, name), el("dd", { class: kind || null }, value))));
}
function table(label, heads, rows, empty) {
  if (rows === null) return el("p", { class: "unknown" }, "unknown");
  if (!rows.length) return el("p", { class: "soft" }, empty);
  const head = el("tr", {}, heads.map(([name, kind]) => el("th", { scope: "col", class: kind === "n" ? "n" : null }, name)));
  const body = rows.map((row) => el("tr", {}, row.map((value, at) => el("td", { class: heads[at][1] || null }, value))));
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label + ", as a table" }, el("table", {}, el("thead", {}, head), el("tbody", {}, body)));
}

// ---- what changes something: asked for in a dialog, by token and reason, over TLS alone ----

const secret = () => location.protocol === "https:" || ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
function button(text, label, kind, press) {
  const made = el("button", { type: "button", class: kind, "aria-label": label }, text);
  made.addEventListener("click", press);
  return made;
}
let asked = null;
function ask(title, what, verb, path, body) {
  asked = { path, body, from: document.activeElement && document.activeElement.getAttribute("aria-label") };
  byId("ask-title").textContent = title;
  byId("ask-what").textContent = what;
  byId("ask-yes").textContent = verb;
  byId("ask-told").textContent = secret() ? "" : "This page came by http://, where others can read a token. Open it by https:// first.";
  byId("ask-yes").disabled = !secret();
  byId("ask-judge").hidden = !("id" in body);
  byId("ask-form").reset();
  byId("ask").showModal();
  byId("ask-reason").focus();
}
async function submit(event) {
  event.preventDefault();
  const { path, body } = asked, token = byId("ask-token").value;
  byId("ask-yes").disabled = true;
  try {
    const answer = await fetch(path, { method: "POST", headers: { Authorization: "Bearer " + token, "Content-Type": "application/json" }, body: JSON.stringify({ ...body, reason: byId("ask-reason").value.trim(), ...("id" in body ? { false_alarm: byId("ask-false").checked } : {}) }) });
    const told = await answer.json();
    if (answer.ok) { byId("ask").close(); load().catch(() => {}); return; }
    byId("ask-told").textContent = told.error || "The Hub answers " + answer.status;
  } catch (error) {
    byId("ask-told").textContent = "Not known whether it arrived: " + error.message;
  } finally {
    byId("ask-token").value = "";
    byId("ask-yes").disabled = false;
  }
}
function closed() {
  byId("ask-token").value = "";
  const back = asked && [...document.querySelectorAll("button")].find((each) => each.getAttribute("aria-label") === asked.from);
  asked = null;
  if (back) back.focus();
}
byId("ask-form").addEventListener("submit", submit);
byId("ask-no").addEventListener("click", () => byId("ask").close());
byId("ask").addEventListener("close", closed);

function halter(gateway, magic) {
  if (!may.halt) return null;
  const whom = magic === null ? "everything at " + gateway : "magic number " + magic + " at " + gateway;
  return button("HALT", "Halt " + whom, "danger", () => ask("Halt " + whom, "No order of it is taken any more until an operator resumes it (mt5crs resume). Positions stay open.", "Halt", "api/halt", { gateway, magic }));
}

function gauge(of) {
  const share = of.used === null ? null : Math.min(1, of.used / of.most);
  const kind = share === null ? "" : share >= 0.9 ? "bad" : share >= 0.7 ? "warn" : "";
  const bar = svg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", width: "100", height: "4", rx: "2" }),
    svg("rect", { class: "used " + kind, width: String((share || 0) * 100), height: "4", rx: "2" }));
  const meter = share === null ? {} : { role: "meter", "aria-label": of.name, "aria-valuemin": "0", "aria-valuemax": String(of.most), "aria-valuenow": String(of.used) };
  return el("div", { class: "gauge", ...meter }, el("span", {}, of.name, el("span", {}, told(of.used, plain), " of " + plain(of.most))), bar);
}

function phase(of) {
  if (of === null) return unknown();
  if (!of.enforced) return el("span", { class: "soft" }, "no phases here");
  const kind = of.trading === "ACTIVE" ? "good" : of.trading === "REDUCING" ? "warn" : "bad";
  const left = of.expires_in_s === null ? "" : ", record ends in " + span(of.expires_in_s);
  return el("span", {}, "phase " + of.phase + (of.title ? " " + of.title : "") + left + " ", pill(of.trading, kind));
}

function magic(of, gateway) {
  const marks = [];
  if (of.dry_run) marks.push(pill("dry run", "warn"));
  if (of.breaker_open) marks.push(pill("circuit breaker open", "bad"));
  if (of.unresolved && of.unresolved.length) marks.push(pill(of.unresolved.length + " unresolved", "bad"));
  return el("div", {},
    el("h3", {}, "Magic number " + of.magic + (of.host ? ", " + of.host : ""), " ", of.host ? halter(gateway, of.magic) : null), // without a host it is none of the inventory's
    el("p", { class: "note" }, phase(of.phase), " ", marks.flatMap((each) => [each, " "])),
    of.phase && of.phase.enforced && of.phase.why ? el("p", { class: "soft note" }, of.phase.why) : null,
    el("p", { class: "note soft" }, "profit of the day, as the gateway reckons its limits: ", told(of.daily_profit, number(2))),
    of.gauges.length ? el("div", { class: "gauges" }, of.gauges.map(gauge)) : null);
}

function listening(of) {
  const kind = { listening: "good", starting: "warn" }[of.listener.state] || "bad";
  const words = { listening: "heard", not_kept: "cannot be kept" };
  return pill(words[of.listener.state] || of.listener.state, kind);
}

function moneyOf(of) {
  const account = of.account, currency = account ? account.currency : "";
  const made = figures(
    ["equity", told(account && account.equity, money(currency)), "big"],
    ["open profit", told(account && account.profit, signed(currency)), "big"],
    ["closed today, broker's day", told(of.today && of.today.net, signed(currency)), "big"],
    ["balance", told(account && account.balance, money(currency))],
    ["margin in use", told(account && account.margin, money(currency))],
    ["trades today", told(of.today && of.today.trades)],
    ["account", account ? account.login + ", " + account.server + " (" + account.trade_mode + ")" : unknown()],
    ["terminal", account ? (account.connected ? (account.trade_allowed ? "connected" : "connected, trading not allowed") : "not connected") : unknown()],
    ["release", told(of.version)]);
  made.setAttribute("data-money", of.name);
  return made;
}

function heardOf(of) {
  return el("span", { class: "soft", "data-heard": of.name }, "last event ", age(of.listener.event_age_s));
}

function gateway(of) {
  const account = of.account;
  const state = of.state === null ? unknown() : pill(of.state, of.state === "ready" ? "good" : "bad");
  const halts = of.halts === null ? [el("p", { class: "note" }, "Halts: ", unknown())]
    : of.halts.map((each) => el("p", { class: "note bad" }, "HALT " + (each.scope === "fleet" ? "of the whole gateway" : "of " + each.magic) + " by " + each.client + ": " + each.reason));
  const gaps = of.listener.gaps;
  const old = of.current ? "" : "stale";
  const rows = (which, make) => (of[which] === null ? null : of[which].map(make));
  const more = (which) => (of[which] && of[which + "_in_all"] > of[which].length ? el("p", { class: "soft" }, of[which].length + " of " + of[which + "_in_all"] + " are shown.") : null);
  const id = "gateway-" + of.name;
  return el("section", { "aria-labelledby": id },
    el("h2", { id }, of.name, state, listening(of), heardOf(of), of.magics.filter((each) => each.host).length > 1 ? halter(of.name, null) : null),
    of.listener.reason ? el("p", { class: "bad note" }, of.listener.reason) : null,
    of.reason ? el("p", { class: "warn note" }, of.reason) : null,
    halts,
    of.current || !account ? null : el("p", { class: "warn note" }, "What follows was so when it was last heard; what is now is unknown."),
    el("div", { class: old },
      moneyOf(of),
      el("div", { "data-curve": of.name }),
      of.magics.map((each) => magic(each, of.name)),
      el("h3", {}, "Positions"),
      table("Positions of " + of.name, [["symbol", "name"], ["side"], ["lots", "n"], ["opened at", "n"], ["profit", "n"], ["magic", "n"], ["comment", "text"]],
        rows("positions", (each) => [each.symbol, each.type, told(each.volume, plain), told(each.price_open, plain), told(each.profit, signed("")), each.magic, each.comment]), "No position is open."), more("positions"),
      of.positions && of.positions.length ? el("p", { class: "soft" }, "Their profit is as the books were read, ", age(of.read_age_s), ".") : null,
      el("h3", {}, "Working orders"),
      table("Working orders of " + of.name, [["symbol", "name"], ["type"], ["lots", "n"], ["price", "n"], ["state"], ["magic", "n"], ["comment", "text"]],
        rows("orders", (each) => [each.symbol, each.type, told(each.volume_current, plain), told(each.price_open, plain), each.state, each.magic, each.comment]), "No order is working."), more("orders")),
    el("h3", {}, "What the Hub did not hear"),
    el("p", { class: "soft note" }, of.listener.first_heard === null ? "It was never heard." : "Heard since " + clock(of.listener.first_heard) + "; deals kept from " +
      (of.listener.history_from_msc === null ? "unknown" : brokerTime(of.listener.history_from_msc) + " on") + "."),
    gaps.length ? table("Gaps of " + of.name, [["from", "time"], ["for", "n"], ["why", "text"]], gaps.map((each) => [clock(each.since), span(each.until - each.since), each.reason]), "") : null,
    gaps.length ? el("p", { class: "soft" }, "Deals and closed orders of these times were read from the books; the account's money, refusals and what came and went in them are unknown.") : null);
}

function draw(of) {
  gateways.set(of.name, of);
  const place = byId("gateways"), id = "card-" + of.name;
  const fresh = el("div", { id }, gateway(of)), old = byId(id);
  const open = old && old.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  if (old) {
    const curve = old.querySelector("[data-curve]"), empty = fresh.querySelector("[data-curve]");
    if (curve && empty) empty.replaceWith(curve);
    old.querySelectorAll(".wide").forEach((each) => {
      const same = [...fresh.querySelectorAll(".wide")].find((other) => other.getAttribute("aria-label") === each.getAttribute("aria-label"));
      if (same && each.scrollLeft) requestAnimationFrame(() => { same.scrollLeft = each.scrollLeft; });
    });
    old.replaceWith(fresh);
    if (open) for (const each of fresh.querySelectorAll(".wide, button")) if (each.getAttribute("aria-label") === open) each.focus({ preventScroll: true });
  } else place.append(fresh);
}

async function curve(name) {
  const place = [...document.querySelectorAll("[data-curve]")].find((each) => each.getAttribute("data-curve") === name);
  if (!place) return;
  const answer = await fetch("api/equity?hours=24&gateway=" + encodeURIComponent(name));
  if (!answer.ok) { place.replaceChildren(el("h3", {}, "Equity, last 24 hours"), unknown()); return; }
  const of = await answer.json();
  const points = of.points.filter((each) => each[2] !== null);
  if (points.length < 2) { place.replaceChildren(el("h3", {}, "Equity, last 24 hours"), el("p", { class: "unknown" }, "too little was heard for a curve")); return; }
  const first = points[0][0], last = points[points.length - 1][0], values = points.map((each) => each[2]);
  const low = Math.min(...values), high = Math.max(...values), across = last - first || 1, up = high - low || 1;
  const x = (at) => ((at - first) / across) * 720, y = (value) => 116 - ((value - low) / up) * 112;
  const parts = [[]];
  points.forEach((each, at) => {
    // Nothing is drawn through a time that was not heard.
    if (at && of.gaps.some((gap) => gap.since < each[0] && gap.until > points[at - 1][0] && gap.until - gap.since > 1)) parts.push([]);
    parts[parts.length - 1].push(x(each[0]).toFixed(1) + "," + y(each[2]).toFixed(1));
  });
  const unheard = of.gaps.map((gap) => [Math.max(0, x(gap.since)), Math.min(720, x(gap.until))]).filter(([from, to]) => to > from)
    .map(([from, to]) => svg("rect", { x: from.toFixed(1), y: "0", width: (to - from).toFixed(1), height: "120" }));
  const picture = svg("svg", { class: "curve", viewBox: "0 0 720 120", preserveAspectRatio: "none", role: "img", "aria-label": "Equity from " + low.toFixed(2) + " to " + high.toFixed(2) + " " + of.currency },
    ...unheard, ...parts.map((each) => svg("polyline", { points: each.length > 1 ? each.join(" ") : each[0] + " " + each[0] })));
  place.replaceChildren(el("h3", {}, "Equity, last 24 hours"), picture,
    el("div", { class: "soft ends" }, el("span", {}, clock(first)), el("span", {}, "from " + number(2)(low) + " to " + number(2)(high) + " " + of.currency), el("span", {}, clock(last))));
}

function drawHosts(of) {
  const place = byId("hosts");
  const cards = Object.entries(of.hosts).map(([name, services]) => {
    const up = services === null ? [unknown()] : Object.entries(services).sort().map(([job, is]) => pill(job, is ? "good" : "bad"));
    const p95 = of.order_p95_s && of.order_p95_s[name] !== undefined ? el("div", { class: "soft" }, "orders P95 " + (of.order_p95_s[name] * 1000).toFixed(0) + " ms (1 h)") : null;
    return el("li", {}, el("strong", {}, name), up.length ? up : el("span", { class: "unknown" }, "not watched"), p95);
  });
  const latency = of.order_p95_s === null || !Object.keys(of.order_p95_s).length ? el("p", { class: "soft note" }, "Latency of orders: ", unknown()) : null;
  const refused = of.refused === null ? el("p", { class: "soft note" }, "Refused orders: ", unknown())
    : el("p", { class: "soft note" }, "Orders since the gateways started: " + (of.refused.filter((each) => each.count).map((each) => each.gateway + " " + each.magic + " " + each.outcome + " " + each.count).join(", ") || "none refused, rejected or unresolved"));
  place.replaceChildren(of.known ? "" : el("p", { class: "bad note" }, "Which services run is unknown: " + of.reason), el("ul", { class: "hosts" }, cards), latency || "", refused);
}

function drawAlerts(of) {
  const head = of.known ? el("p", { class: "note" }, of.counts.firing + of.counts.pending ? pill(of.counts.firing + " firing", of.counts.firing ? "bad" : "good") : pill("none fires", "good"), " ", of.counts.pending ? pill(of.counts.pending + " pending", "warn") : "", " ", el("span", { class: "soft" }, "asked ", age(of.age_s)))
    : el("p", { class: "bad note" }, "What fires now is unknown: " + of.reason + (of.age_s === null ? "" : " What follows is " + span(of.age_s) + " old."));
  const link = (each) => (/^https?:\/\//.test(each.runbook_url) ? el("a", { href: each.runbook_url, rel: "noreferrer" }, each.name) : el("span", {}, each.name));
  const kind = (each) => (each.state === "resolved" ? "" : each.severity === "critical" ? "bad" : "warn");
  const list = of.alerts.slice(0, 50);
  byId("alerts").replaceChildren(head, list.length ? table("Alerts", [["alert", "name"], ["state"], ["host"], ["since", "time"], ["times", "n"], ["value", "n"], ["what", "text"], ["looked after by", "text"]],
    list.map((each) => [link(each), el("span", {}, pill(each.state, kind(each)), each.silenced ? " silenced" : each.silenced === null && each.state !== "resolved" ? el("span", { class: "unknown" }, " silenced: unknown") : ""),
      each.host, told(each.since, clock), String(each.count), told(each.value, plain), each.summary, acknowledged(each)]), "") : "",
  of.alerts.length + of.left_out > list.length ? el("p", { class: "soft" }, (of.alerts.length + of.left_out - list.length) + " more: api/alerts/state") : "");
}

function drawLetters(of) {
  const dead = of.dead.length, waiting = of.waiting.length;
  byId("letters").replaceChildren(...(of.on || dead || waiting ? [
    el("h3", {}, "Signed webhook"),
    el("p", { class: "note" }, dead ? pill(dead + (dead === 1 ? " dead letter" : " dead letters"), "bad") : pill("nothing undelivered", "good"), " ", waiting ? pill(waiting + " waiting", "warn") : "", " ", el("span", { class: "soft" }, of.accepted_at === null ? "none was accepted since the Hub started" : "the last one was accepted " + clock(of.accepted_at))),
    of.not_kept ? el("p", { class: "bad note" }, "A restart would lose them: " + of.not_kept) : "",
    dead + waiting ? table("Undelivered", [["since", "time"], ["state"], ["alerts", "text"], ["tries", "n"], ["why", "text"], ["id", "name"]],
      [...of.dead, ...of.waiting].slice(0, 20).map((each) => [clock(each.at), pill(each.dead ? "dead letter" : "waiting", each.dead ? "bad" : "warn"), each.status + ": " + each.alerts.join(", "), String(each.tries), each.reason || "not tried yet", each.id]), "") : "",
    dead + waiting > 20 ? el("p", { class: "soft" }, (dead + waiting - 20) + " more: api/alerts/dead-letters") : "",
  ] : []));
}

function acknowledged(each) {
  if (each.acknowledged) return el("span", { class: "soft" }, each.acknowledged.by + (each.acknowledged.false_alarm ? ", false alarm: " : ": ") + each.acknowledged.reason);
  if (each.state !== "firing" || !may.acknowledge) return el("span", { class: "soft" }, each.state === "firing" ? "nobody" : "");
  return button("Acknowledge", "Acknowledge " + each.name + " of " + (each.host || "the fleet"), "", () => ask("Acknowledge " + each.name, each.summary, "Acknowledge", "api/alerts/acknowledge", { id: each.id }));
}

function drawHalts(of) {
  const before = may.halt;
  may = { halt: of.may, acknowledge: of.acknowledge };
  if (before !== may.halt) for (const each of [...gateways.values()]) draw(each);
  const kind = { halted: "bad", due: "warn", impossible: "bad" };
  byId("halts").replaceChildren(
    el("p", { class: "soft note" }, of.on.length ? "Alerts that halt: " + of.on.join(", ") + "." : "No alert halts (hub_halt_on).", of.acknowledge ? "" : " Nobody may halt or acknowledge here (hub_operators)."),
    table("Halts", [["asked", "time"], ["gateway"], ["magic", "n"], ["by"], ["became"], ["why", "text"]],
      of.halts.map((each) => [clock(each.at), each.gateway, each.magic, each.by, el("span", {}, pill(each.outcome, kind[each.outcome]), each.detail ? " " + each.detail : ""), each.reason]), "The Hub was asked for none."));
}

// One bar for each step, as long as it took beside the others.
function timeline(of) {
  const all = of.phases.reduce((sum, each) => sum + (each.seconds || 0), 0);
  if (!all) return el("span", { class: "soft" }, "no steps");
  let at = 0;
  const bars = of.phases.map((each) => {
    const from = (at / all) * 100, wide = Math.max(0.6, ((each.seconds || 0) / all) * 100);
    at += each.seconds || 0;
    return svg("rect", { x: from.toFixed(2), y: "0", width: wide.toFixed(2), height: "6", class: each.failed ? "bad" : each.changed ? "good" : "" });
  });
  const words = of.phases.map((each) => each.name + " " + span(each.seconds || 0) + (each.failed ? ", failed on " + each.failed : ""));
  return el("details", {}, el("summary", {}, svg("svg", { class: "steps", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": "Steps of " + of.id.slice(0, 8) }, ...bars)),
    el("ol", {}, words.map((each) => el("li", {}, each))));
}
function drawDeployments(of) {
  const since = (at) => (at === null ? unknown() : el("span", {}, clock(at) + ", ", age(Date.now() / 1000 - at)));
  const kind = { changed: "good", failed: "bad", interrupted: "bad", running: "warn" };
  const list = of.deployments === null ? null : of.deployments.slice(0, 12);
  byId("deployments").replaceChildren(
    figures(["last restore that was proven", since(of.backups.proven), "big"], ["last backup", since(of.backups.taken)]),
    of.known ? "" : el("p", { class: "soft note" }, "Deployments are unknown: " + of.reason),
    table("Deployments", [["began", "time"], ["by"], ["what"], ["strategy"], ["outcome"], ["took", "n"], ["steps", "steps"], ["in words", "text"]],
      list && list.map((each) => [told(each.started, (text) => text.replace("T", " ").slice(0, 19)), told(each.who), told(each.action), told(each.strategy), pill(each.outcome || "unknown", kind[each.outcome]), told(each.seconds, span), timeline(each), told(each.sentence)]), "None yet."));
}

const LEVELS = { deployment_success_percent: ["deployments that succeeded", " %"], availability_percent: ["availability", " %"], detection_s: ["detection, P95", " s"], recovery_s: ["recovery, P95", " s"],
  alert_accuracy_percent: ["alert accuracy", " %"], monitoring_coverage_percent: ["monitoring coverage", " %"], watched_percent: ["time watched", " %"] };
function drawLevels(of) {
  const rows = Object.entries(of.levels).map(([name, each]) => [LEVELS[name] ? LEVELS[name][0] : name,
    each.no_data ? el("span", { class: "unknown" }, "no data: " + each.no_data) : el("span", { class: each.met ? "good" : "bad" }, plain(each.value) + (LEVELS[name] || ["", ""])[1]),
    each.target, each.of === undefined ? "" : plain(each.of), [each.partly, each.missing && "not looked at: " + each.missing.join(", ")].filter(Boolean).join("; "), each.definition]);
  byId("levels").replaceChildren(el("p", { class: "soft note" }, "Since " + clock(of.since) + "."),
    table("Service levels", [["level"], ["is", "n"], ["asked for", "n"], ["cases", "n"], ["", "text"], ["what it is", "text"]].map((each) => (each[0] ? each : ["note", "text"])), rows, ""));
}
function drawIncidents(of) {
  const kind = { open: "bad", watching: "warn", closed: "good" };
  byId("incidents").replaceChildren(el("h3", {}, "Incidents"), of.known ? "" : el("p", { class: "soft note" }, "Incidents are unknown: " + of.reason),
    table("Incidents", [["opened", "time"], ["id"], ["priority"], ["state"], ["by"], ["what", "text"], ["root cause", "text"]],
      of.incidents && of.incidents.slice(0, 12).map((each) => [told(each.opened, clock), told(each.id), told(each.priority), pill(each.state || "unknown", kind[each.state]), told(each.by), told(each.what), each.root_cause || el("span", { class: "soft" }, "to be filled in")]), "None is recorded."));
}

function drawTrades() {
  byId("trades").replaceChildren(table("Latest trades", [["time", "time"], ["gateway"], ["symbol", "name"], ["what"], ["lots", "n"], ["price", "n"], ["result", "n"], ["magic", "n"], ["comment", "text"]],
    trades.slice(-30).reverse().map((each) => [brokerTime(each.time_msc), each.gateway, each.symbol, each.type + " " + each.entry, told(each.volume, plain), told(each.price, plain),
      told(each.net === undefined ? each.profit + each.commission + each.fee + each.swap : each.net, signed("")), each.magic, each.comment]), "The Hub keeps no trade yet."));
}

async function load() {
  const [fleet, alerts, latest, halts, deployments] = await Promise.all(["api/fleet", "api/alerts/state", "api/trades?last=30", "api/halts", "api/deployments"].map(async (path) => {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(path + " answers " + answer.status);
    return answer.json();
  }));
  heard = Date.now();
  const names = new Set(fleet.gateways.map((each) => each.name));
  for (const name of gateways.keys()) if (!names.has(name)) { gateways.delete(name); byId("card-" + name).remove(); }
  fleet.gateways.forEach(draw);
  drawHalts(halts);
  drawDeployments(deployments);
  fetch("api/levels").then((answer) => answer.json()).then(drawLevels).catch(() => {});
  fetch("api/alerts/dead-letters").then((answer) => answer.json()).then(drawLetters).catch(() => {});
  fetch("api/incidents").then((answer) => answer.json()).then(drawIncidents).catch(() => {});
  drawHosts(fleet.hosts);
  drawAlerts(alerts);
  trades = latest.trades;
  drawTrades();
  for (const name of names) curve(name).catch(() => {});
}

function link(kind, ...content) { byId("link").replaceChildren(pill(kind === "good" ? "live" : "not live", kind), " ", el("span", { class: "soft" }, ...content)); }

function connect() {
  const stream = new EventSource("api/stream");
  const on = (name, take) => stream.addEventListener(name, (event) => { heard = Date.now(); take(JSON.parse(event.data)); });
  on("hello", () => { opened = true; link("good", "changes arrive by themselves"); load().catch((error) => link("bad", String(error.message))); });
  on("gateway", draw);
  on("money", (of) => {
    const known = gateways.get(of.name), card = byId("card-" + of.name);
    if (!known || !card) return;
    const now = { ...known, account: of.account, listener: { ...known.listener, event_age_s: of.event_age_s } };
    gateways.set(of.name, now);
    card.querySelector("[data-money]").replaceWith(moneyOf(now));
    card.querySelector("[data-heard]").replaceWith(heardOf(now));
  });
  on("alerts", drawAlerts);
  on("halts", drawHalts);
  on("letters", drawLetters);
  on("deployments", drawDeployments);
  on("hosts", drawHosts);
  on("trade", (each) => { trades.push(each.deal ? { ...each.deal, gateway: each.gateway } : each); trades = trades.slice(-500); drawTrades(); });
  stream.onerror = () => {
    link("bad", "no connection to the Hub; what is shown is of ", heard ? clock(heard) : "unknown");
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
  };
}

setInterval(() => document.querySelectorAll("[data-since]").forEach((each) => { each.textContent = span(Math.max(0, Date.now() - Number(each.getAttribute("data-since"))) / 1000); }), 1000);
setInterval(() => { if (opened) for (const name of gateways.keys()) curve(name).catch(() => {}); }, 30000);
connect();
