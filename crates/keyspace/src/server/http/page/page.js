// Asks for the state twice a second while the page is seen, and draws it. No libraries.
const KEPT = 600, SHOWN = 300, EVERY_MS = 500;
const get = (id) => document.getElementById(id);
const history = [];
let errors = 0;
const failed = (what) => { document.body.dataset.errors = ++errors; get("said").textContent = what; };
addEventListener("error", (it) => failed(it.message));

const size = (n) => {
  if (n < 1024) return `${Math.round(n)} B`;
  let unit = -1;
  do { n /= 1024; unit++; } while (n >= 1000 && unit < 3);
  return `${n.toFixed(n < 100 ? 1 : 0)} ${["KiB", "MiB", "GiB", "TiB"][unit]}`;
};
const count = (n) => n >= 1e6 ? `${(n / 1e6).toFixed(2)} M` : n >= 1e4 ? `${(n / 1e3).toFixed(1)} k` : `${+n.toFixed(1)}`;
const percent = (n) => `${n.toFixed(1)} %`;
const ratio = (n) => n.toFixed(2);
const colour = (i) => `var(--c${i % 8})`;
const make = (tag, text, parent) => { const it = document.createElement(tag); it.textContent = text; parent.append(it); return it; };

const account = (name) => (s) => s.accounts.find((it) => it.name === name)?.live_bytes ?? 0;
const memory = (field) => (s) => s.memory[field];
const GREYS = [["rounding up", "waste_bytes"], ["thread caches", "cached_bytes"], ["free in slabs", "free_bytes"], ["dirty", "dirty_bytes"], ["metadata", "metadata_bytes"]];
// Accounts in a fixed order: a colour means the same from one look to the next.
const purposes = (s) => s.accounts.map((it) => it.name).sort((a, b) => (a !== "dataset") - (b !== "dataset") || (a < b ? -1 : 1));
const stacks = (s) => [
  ...purposes(s).map((name, i) => ({ name, of: account(name), colour: colour(i) })),
  { name: "server", of: memory("server_bytes"), colour: colour(7) },
  ...GREYS.map(([name, field], i) => ({ name, of: memory(field), colour: `var(--g${i})` })),
  { name: "outside the heap", of: (it) => Math.max(0, it.memory.rss_bytes - it.memory.resident_bytes), colour: "var(--out)" },
];
const rate = (of) => (s, before) => {
  const ms = before ? s.server.uptime_ms - before.server.uptime_ms : 0;
  return ms > 0 ? Math.max(0, of(s) - of(before)) * 1000 / ms : 0;
};
const lines = (...list) => () => list.map(([name, of, c]) => ({ name, of, colour: c }));
const CHARTS = [
  { id: "memory", height: 210, width: 1200, text: size, stacked: stacks, lines: lines(["RSS", memory("rss_bytes"), "var(--rss)"]) },
  { id: "ratio", text: ratio, least: 1, lines: lines(["RSS / used", memory("fragmentation_ratio"), "var(--rss)"]) },
  { id: "commands", text: count, lines: lines(["commands/s", rate((s) => s.server.commands), "var(--c0)"]) },
  { id: "removed", text: count, lines: lines(["expired/s", rate((s) => s.server.expired_keys), "var(--c2)"], ["evicted/s", rate((s) => s.server.evicted_keys), "var(--rss)"]) },
  { id: "buffers", text: size, stacked: () => ["client query buffers", "output buffers, normal", "output buffers, pubsub"].map((name, i) => ({ name, of: account(name), colour: colour(i + 3) })) },
  { id: "effort", text: percent, lines: lines(["running", (s, b) => rate((it) => it.defrag.time_ns)(s, b) / 1e7, "var(--c0)"]) },
  { id: "moved", text: size, lines: lines(["moved", (s) => s.defrag.moved_bytes, "var(--c4)"], ["released", (s) => s.defrag.released_bytes, "var(--c1)"]) },
];

function draw(chart) {
  const { id, text, least = 0 } = chart, isWide = chart.width && innerWidth > 860;
  // In the units of the drawing: what is narrow on the screen keeps letters of a size to read.
  const width = isWide ? chart.width : 400, height = isWide ? chart.height : 120;
  const last = history.at(-1), before = history.at(-2);
  const step = Math.ceil(history.length / SHOWN);
  const at = history.map((_, i) => i).filter((i) => (history.length - 1 - i) % step === 0);
  const series = (list) => list.map((it) => ({ ...it, now: it.of(last, before), values: at.map((i) => it.of(history[i], history[i - step])) }));
  const stacked = series(chart.stacked?.(last) ?? []), plain = series(chart.lines?.(last) ?? []);
  let sums = at.map(() => 0);
  for (const it of stacked) { it.under = sums; sums = sums.map((sum, i) => sum + it.values[i]); it.over = sums; }
  const top = Math.max(...sums, ...plain.flatMap((it) => it.values), least * 1.2, 1e-9) * 1.08;
  const end = last.server.uptime_ms, begin = Math.min(history[0].server.uptime_ms, end - 30000);
  const x = (i) => ((history[at[i]].server.uptime_ms - begin) / (end - begin) * width).toFixed(1);
  const y = (v) => (height - 14 - v / top * (height - 22)).toFixed(1);
  const path = (values) => values.map((v, i) => `${x(i)},${y(v)}`);
  let out = "";
  for (const it of stacked) out += `<path fill="${it.colour}" d="M${path(it.over).concat(path(it.under).reverse()).join("L")}Z"/>`;
  for (const part of [0, 0.5, 1]) {
    const v = top / 1.08 * part;
    out += `<path class="grid" stroke-opacity=".6" d="M0,${y(v)}H${width}"/><text x="2" y="${y(v) - 2}">${text(v)}</text>`;
  }
  for (const it of plain) out += `<path fill="none" stroke-width="2" stroke="${it.colour}" d="M${path(it.values).join("L")}"/>`;
  const seconds = Math.round((end - begin) / 1000);
  out += `<text x="0" y="${height - 2}">${seconds} s ago</text><text x="${width}" y="${height - 2}" text-anchor="end">now</text>`;
  const all = [...plain, ...stacked];
  const label = all.map((it) => `${it.name}: ${text(it.now)}`).join(", ");
  const box = get(id);
  box.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img">${out}</svg><div class="key"></div>`;
  box.firstChild.setAttribute("aria-label", label);
  box.dataset.points = at.length;
  for (const it of all) {
    const key = make("span", "", box.lastChild);
    make("i", "", key).style.background = it.colour;
    key.append(`${it.name} ${text(it.now)}`);
  }
}

function tiles(s, before) {
  const hits = s.server.keyspace_hits, looked = hits + s.server.keyspace_misses;
  const list = [["used", size(s.memory.used_bytes)], ["RSS", size(s.memory.rss_bytes)], ["RSS / used", ratio(s.memory.fragmentation_ratio)],
    ["keys", count(s.server.keys)], ["commands/s", count(rate((it) => it.server.commands)(s, before))], ["clients", count(s.server.clients)]];
  get("tiles").replaceChildren();
  for (const [name, value] of list) { const tile = make("div", name, get("tiles")); tile.prepend(Object.assign(document.createElement("b"), { textContent: value })); }
  const limit = s.server.max_memory_bytes ? `maxmemory ${size(s.server.max_memory_bytes)}` : "no maxmemory";
  get("about").textContent = `${s.version} on Tallow, ${limit}, hits ${looked ? percent(100 * hits / looked) : "none yet"}, a defrag pass would release ${size(s.memory.evacuable_bytes)}`;
  get("defrag").setAttribute("aria-pressed", s.server.active_defrag);
  get("defrag").textContent = `Active defrag: ${s.server.active_defrag ? "on" : "off"}`;
}

function heat(all) {
  const box = get("heat"), bytes = (row) => row.capacity * row.region_bytes;
  // The heaviest, smallest size first; the rest hold next to nothing.
  const rows = all.toSorted((a, b) => bytes(b) - bytes(a)).slice(0, 16).sort((a, b) => a.region_bytes - b.region_bytes);
  box.replaceChildren();
  for (const row of rows) {
    const line = make("div", "", box), full = percent(100 * row.live / row.capacity);
    line.className = "row";
    make("span", size(row.region_bytes), line);
    const cells = row.cells.map((full, i) => `<rect x="${i * 10}" width="9" height="12" fill="color-mix(in oklab, var(--full) ${full}%, var(--empty))"/>`);
    line.insertAdjacentHTML("beforeend", `<svg viewBox="0 0 960 12" preserveAspectRatio="none" role="img" aria-label="${size(row.region_bytes)}: ${full} full">${cells.join("")}</svg>`);
    const note = make("span", `${full} of ${row.slabs}`, line), per = row.slabs_per_cell;
    make("span", ` slab${row.slabs === 1 ? "" : "s"}${per > 1 ? `, ${per} to a cell` : ""}`, note).className = "more";
  }
  if (all.length > rows.length) make("p", `and ${all.length - rows.length} size classes with less memory`, box);
  box.dataset.rows = rows.length;
}

async function look() {
  try {
    const answer = await fetch("/api/state", { headers: { "X-Keyspace-Token": get("token").value } });
    if (!answer.ok) throw Error(await answer.text());
    const state = await answer.json();
    // Another run of the server: what was before belongs to the one that is gone.
    if (history.length && state.server.uptime_ms < history.at(-1).server.uptime_ms) history.length = 0;
    if (state.server.uptime_ms !== history.at(-1)?.server.uptime_ms) history.push(state);
    if (history.length > KEPT) history.shift();
    if (history.length > 1) history.at(-2).heat = null;
    tiles(state, history.at(-2));
    CHARTS.forEach(draw);
    heat(state.heat);
    document.body.dataset.samples = history.length;
  } catch (error) { failed(`no answer: ${error.message}`); }
  if (!document.hidden) setTimeout(look, EVERY_MS); else document.addEventListener("visibilitychange", look, { once: true });
}

// The token comes behind the # of the address on the console, which browsers send to nobody.
const given = location.hash.match(/^#token=([0-9a-f]+)$/)?.[1];
if (given) { sessionStorage.token = given; window.history.replaceState(null, "", "/"); }
get("token").value = sessionStorage.token ?? "";
get("token").addEventListener("change", () => { sessionStorage.token = get("token").value; });
async function act(path) {
  const answer = await fetch(path, { method: "POST", headers: { "X-Keyspace-Token": get("token").value } });
  const text = await answer.text();
  get("said").textContent = !answer.ok ? text : path === "/api/purge" ? `gave back ${size(+text)}` : "done";
}
get("actions").addEventListener("submit", (it) => it.preventDefault());
get("purge").addEventListener("click", () => act("/api/purge"));
get("once").addEventListener("click", () => act("/api/defrag"));
get("defrag").addEventListener("click", () => act(`/api/activedefrag/${get("defrag").getAttribute("aria-pressed") === "true" ? "no" : "yes"}`));
look();
