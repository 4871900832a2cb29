"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const FIRST_ROWS = 25;
const PAGE_ROWS = 100;
const LEVEL_STYLE = { difference: "bad", differs: "bad", unchecked: "fair", note: "plain", noted: "plain", ok: "good" };
const LEVEL_NAMES = { difference: "differences", unchecked: "not checked", note: "notes" };
const KINDS = { run: "", model: " (models)", model_version: " (model versions)" };
const state = { project: -1 };
const redraws = [];

// --- elements: strangers' names only ever become text

function make(tag, about, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(about || {})) {
    if (name === "on") Object.entries(value).forEach(([event, f]) => element.addEventListener(event, f));
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function drawing(tag, about, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(about)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const name = (text) => make("bdi", {}, text === null || text === "" ? "\u2013" : String(text));
const number = (value) => value.toLocaleString("en-US");
const plural = (count, one, more) => `${number(count)} ${count === 1 ? one : more || one + "s"}`;

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

const when = (time) => (time ? time.replace("T", " ").replace(/(\.\d+)?\+00:00$/, "") : "\u2013");
const add = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);
const here = () => (state.project < 0 ? null : data.projects[state.project]);
const ofProject = (row) => state.project < 0 || row[0] === state.project;
const projectName = (index) => (index < 0 ? "\u2013" : data.projects[index].name + (KINDS[data.projects[index].kind] || ""));

/** A place on the page that is drawn anew whenever another project is chosen. */
function drawn(draw, about, tag) {
  const element = make(tag || "div", about);
  const redraw = () => element.replaceChildren(...[draw()].flat().filter((child) => child !== null));
  redraws.push(redraw);
  redraw();
  return element;
}

function section(title, ...children) {
  const id = `section-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return make("section", { "aria-labelledby": id }, make("h2", { id }, title), ...children);
}

function tile(value, label, style) {
  return make("div", { class: "tile" }, make("b", { class: style || null }, value), make("span", {}, label));
}

function choose(index) {
  state.project = index;
  document.querySelectorAll("select.project").forEach((select) => { select.value = String(index); });
  redraws.forEach((redraw) => redraw());
}

function projectChoice() {
  if (data.projects.length < 2) return null;
  const option = (index, text) => make("option", { value: index }, text);
  const select = make("select", { class: "project", id: "project", on: { change: () => choose(Number(select.value)) } },
    option(-1, `all ${number(data.projects.length + data.more_projects)} projects`),
    ...data.projects.map((project, index) => option(index, projectName(index))));
  return make("div", { class: "tools choice" }, make("label", { for: "project" }, "Show"), select);
}

// --- tables that can be searched, filtered, sorted and leafed through

/**
 * @param list {total, rows} as the page has it
 * @param columns [{title, cell(row) -> node or text, value(row) -> what is sorted by, style}]
 * @param filters [{of: index in a row, counts() -> {value: count}, names}]
 * @param total how many rows there are of the chosen project, or null where only the list itself knows
 */
function listing(title, list, columns, { filters = [], total = null, noun = "row", search = true } = {}) {
  const chosen = filters.map(() => null);
  let sorted = null;
  let upwards = false;
  let shown = FIRST_ROWS;
  let wanted = "";
  const keys = list.rows.map((row) => JSON.stringify(row).toLowerCase());
  const body = make("tbody", {});
  const more = make("p", { class: "more", role: "status" });
  const chips = make("div", { class: "tools", role: "group", "aria-label": `Filters of ${title}` });
  const heads = columns.map((column, index) => {
    const sort = () => { upwards = sorted === index ? !upwards : column.style !== "number"; sorted = index; draw(); };
    return make("th", { scope: "col", class: column.style === "number" ? "number" : null },
      make("button", { type: "button", on: { click: sort } }, column.title));
  });

  function matching() {
    const rows = list.rows.filter((row, index) => ofProject(row) && keys[index].includes(wanted)
      && filters.every((filter, n) => chosen[n] === null || row[filter.of] === chosen[n]));
    if (sorted === null) return rows;
    const value = columns[sorted].value;
    return rows.sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      const order = a === b ? 0 : a === null ? -1 : b === null ? 1 : a < b ? -1 : 1;
      return upwards ? order : -order;
    });
  }

  function draw() {
    const rows = matching();
    body.replaceChildren(...rows.slice(0, shown).map((row) => make("tr", {}, ...columns.map((column) => {
      const cell = column.cell(row);
      return make("td", { class: column.style || null }, cell instanceof Node ? cell : String(cell));
    }))));
    heads.forEach((head, index) => head.setAttribute("aria-sort",
      index !== sorted ? "none" : upwards ? "ascending" : "descending"));
    const all = total ? total() : state.project < 0 ? list.total : null;
    const there = list.rows.filter(ofProject).length;
    const parts = [`${number(Math.min(shown, rows.length))} of ${plural(rows.length, noun)} shown`];
    if (all !== null && all > there) parts.push(`${plural(all - there, "more " + noun, "more " + noun + "s")} not on this page: see --json`);
    more.replaceChildren(parts.join("; ") + ". ");
    if (rows.length > shown) {
      more.append(make("button", { type: "button", on: { click: () => { shown += PAGE_ROWS; draw(); } } },
        `Show ${number(Math.min(PAGE_ROWS, rows.length - shown))} more`));
    }
    chips.replaceChildren(...filters.flatMap((filter, n) => Object.entries(filter.counts()).map(([value, count]) => {
      const press = () => { chosen[n] = chosen[n] === value ? null : value; shown = FIRST_ROWS; draw(); };
      return make("button", {
        type: "button", class: "chip", "aria-pressed": chosen[n] === value, "data-filter": value, on: { click: press },
      }, `${(filter.names || {})[value] || value} `, make("span", {}, number(count)));
    })), search ? field : "");
  }

  const field = make("input", {
    type: "search", placeholder: `Search ${noun}s`, "aria-label": `Search ${noun}s`,
    on: { input: (event) => { wanted = event.target.value.toLowerCase(); shown = FIRST_ROWS; drawKeepingFocus(); } },
  });
  function drawKeepingFocus() {
    const focused = document.activeElement === field;
    draw();
    if (focused) field.focus();
  }
  redraws.push(() => { shown = FIRST_ROWS; draw(); });
  draw();
  return section(title, chips, make("div", { class: "scroll" },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body)), more);
}

const column = (title, index, cell, style) => ({ title, style, value: (row) => row[index], cell: cell || ((row) => name(row[index])) });
const count = (title, index, format) => column(title, index, (row) => (format || number)(row[index]), "number");
const projectColumn = () => ({ title: "project", style: "name", value: (row) => projectName(row[0]), cell: (row) => name(projectName(row[0])) });
const inProjects = (columns) => (data.projects.length > 1 ? [projectColumn(), ...columns] : columns);
const badge = (index, names) => (row) => make("span", { class: LEVEL_STYLE[row[index]] || null }, (names || {})[row[index]] || row[index]);

// --- charts

function bars(title, counts, format, note) {
  return section(title, drawn(() => {
    const rows = Object.entries(counts()).filter(([, value]) => value > 0).sort((a, b) => b[1] - a[1]);
    if (!rows.length) return make("p", { class: "soft" }, "None.");
    const most = rows[0][1];
    const total = rows.reduce((sum, [, value]) => sum + value, 0);
    return [make("table", {}, make("caption", {}, `${format(total)} in all${note || ""}`), make("tbody", {}, ...rows.map(([label, value]) => {
      const bar = make("i", {});
      bar.style.width = `${(100 * value) / most}%`;
      return make("tr", { title: `${label}: ${number(value)}` }, make("th", { scope: "row" }, name(label)),
        make("td", { class: "number" }, format(value)), make("td", { class: "bar", "aria-hidden": "true" }, bar));
    })))];
  }));
}

/** The bars of all days, months or years from the first to the last one: those without runs are gaps. */
function spread({ unit, bars: known }) {
  if (!known.length) return [];
  const counts = new Map(known);
  const names = [];
  const length = { day: 10, month: 7, year: 4 }[unit];
  const [first, last] = [known[0][0], known[known.length - 1][0]];
  const time = new Date(`${first}${"-01-01".slice(length === 4 ? 0 : length === 7 ? 3 : 6)}T00:00:00Z`);
  while (names.length < 12000) {
    const label = time.toISOString().slice(0, length);
    names.push(label);
    if (label >= last) break;
    if (unit === "day") time.setUTCDate(time.getUTCDate() + 1);
    else if (unit === "month") time.setUTCMonth(time.getUTCMonth() + 1);
    else time.setUTCFullYear(time.getUTCFullYear() + 1);
  }
  return names.map((label) => [label, counts.get(label) || 0]);
}

function timeline(begun) {
  const all = spread(begun);
  const [width, height, left, bottom, top] = [1100, 190, 48, 24, 10];
  if (!all.length) return [make("p", { class: "soft" }, `No times are known (${plural(begun.unknown, "run")}).`)];
  const most = Math.max(...all.map(([, value]) => value));
  const step = (width - left) / all.length;
  const scale = (height - bottom - top) / most;
  const picture = drawing("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Runs begun per ${begun.unit}, from ${all[0][0]} to ${all[all.length - 1][0]}; at most ${number(most)}`,
  });
  for (const value of new Set([0, Math.ceil(most / 2), most])) {
    const y = height - bottom - value * scale;
    picture.append(drawing("line", { x1: left, x2: width, y1: y, y2: y }),
      drawing("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, number(value)));
  }
  const gap = Math.min(2, step / 5);
  const wide = Math.min(step - gap, 60);
  all.forEach(([label, value], index) => {
    if (!value) return;
    const tall = Math.max(value * scale, 1.5);
    picture.append(drawing("rect", {
      x: left + index * step + (step - wide) / 2, y: height - bottom - tall, width: wide, height: tall, "data-bar": label, "data-runs": value,
    }, drawing("title", {}, `${label}: ${plural(value, "run")}`)));
  });
  const marks = new Set(all.length === 1 ? [0] : [0, Math.floor(all.length / 2), all.length - 1]);
  for (const index of marks) {
    const anchor = all.length === 1 ? "middle" : index === 0 ? "start" : index === all.length - 1 ? "end" : "middle";
    const x = anchor === "middle" ? left + (index + 0.5) * step : index === 0 ? left : width;
    picture.append(drawing("text", { x, y: height - 6, "text-anchor": anchor }, all[index][0]));
  }
  const unknown = begun.unknown ? `; ${plural(begun.unknown, "run")} without a time` : "";
  return [make("p", { class: "soft" }, `Runs begun per ${begun.unit}, UTC${unknown}.`), picture];
}

function forks() {
  return section("Forks", drawn(() => {
    const rows = data.forks.rows.filter(ofProject);
    const total = here() ? here().in_trees : data.forks.total;
    if (!total) return make("p", { class: "soft" }, "No run was forked from another one.");
    const trees = [];
    rows.forEach((row) => (row[2] === 0 || !trees.length ? trees.push([row]) : trees[trees.length - 1].push(row)));
    const label = ([, run, , step, isHere, count]) => [name(run), step === null ? "" : make("span", { class: "soft" }, ` from step ${step}`),
      isHere ? "" : make("span", { class: "fair" }, " is not in this area"), count ? make("span", { class: "soft" }, ` \u00b7 ${plural(count, "fork")}`) : ""];
    const nodes = trees.slice(0, PAGE_ROWS).map((tree, index) => {
      const list = make("ul", { class: "tree" }, ...tree.slice(1, 501).map((row) => {
        const item = make("li", {}, ...label(row));
        item.style.marginLeft = `${Math.min(row[2], 24) * 1.25 - 0.75}rem`;
        return item;
      }), tree.length > 501 ? make("li", { class: "soft" }, `and ${plural(tree.length - 501, "more run")}`) : "");
      return make("details", index < 3 ? { open: "" } : {}, make("summary", {}, ...label(tree[0])), list);
    });
    const left = total - trees.slice(0, PAGE_ROWS).reduce((sum, tree) => sum + tree.length, 0);
    return [...nodes, left > 0 ? make("p", { class: "more" }, `${plural(left, "more run")} in trees of forks: see --json.`) : null];
  }));
}

// --- the two pages

const VERDICTS = { 0: ["All well", "good"], 3: ["Not everything could be read", "fair"], 4: ["Differences found", "bad"] };

function head(title) {
  const missing = data.exit === 0 && data.page === "summary" && data.total.problems;
  const [verdict, style] = missing ? ["Some values were not carried over", "fair"] : VERDICTS[data.exit] || [`Exit code ${data.exit}`, "bad"];
  return make("header", {},
    make("div", {}, make("h1", {}, title), make("p", { class: "soft" }, make("span", { class: "mono" }, name(data.place)), ` \u00b7 ${when(data.made)} UTC`)),
    make("span", { class: `verdict ${style}`, id: "verdict" }, verdict));
}

function projectTable(columns) {
  if (data.projects.length < 2) return null;
  const list = { total: data.projects.length + data.more_projects, rows: data.projects.map((project, index) => [index, project]) };
  const pick = { title: "project", value: ([index]) => projectName(index),
    cell: ([index]) => make("button", { type: "button", on: { click: () => choose(state.project === index ? -1 : index) } }, name(projectName(index))) };
  const figure = ([title, f, format]) => ({ title, style: "number", value: ([, p]) => f(p), cell: ([, p]) => (format || number)(f(p)) });
  return listing("Projects", list, [pick, ...columns.map(figure)], { noun: "project", total: () => (here() ? 1 : list.total) });
}

function summaryPage() {
  const of = () => here() || data.total;
  const counts = (what) => () => of()[what];
  const statuses = (figures) => Object.entries(figures.runs).map(([status, n]) => `${number(n)} ${status}`).join(", ");
  return [
    head("Staging area"),
    projectChoice(),
    drawn(() => [
      here() ? tile(plural(add(of().points), "point"), `steps ${of().steps[0] ?? "\u2013"} to ${of().steps[1] ?? "\u2013"}`) : tile(number(data.total.projects), "projects"),
      tile(number(add(of().runs)), `runs: ${statuses(of()) || "none"}`),
      here() ? tile(number(add(of().attributes)), "attributes") : tile(number(add(of().points)), "points"),
      tile(size(of().part_bytes), `in ${plural(of().parts, "part")}`),
      tile(size(of().file_bytes), `in ${plural(of().files, "file")}`),
      tile(number(of().problems), "values not carried over", of().problems ? "fair" : null),
    ], { class: "tiles", id: "tiles" }),
    data.damaged.total ? listing("Damaged", { total: data.damaged.total, rows: data.damaged.rows.map((row) => [-1, ...row]) },
      [column("what", 1), column("what to do", 2)], { noun: "damage", search: false, total: () => data.damaged.total }) : null,
    section("Runs over time", drawn(() => timeline(of().begun))),
    make("div", { class: "pair" },
      bars("Points by type", counts("points"), number),
      bars("Bytes by type", counts("bytes"), size, " on disk: the columns of these types, and attached files")),
    projectTable([["runs", (p) => add(p.runs)], ["points", (p) => add(p.points)], ["parts", (p) => p.part_bytes, size],
      ["files", (p) => p.file_bytes, size], ["forks", (p) => p.forks], ["problems", (p) => p.problems]]),
    listing("Biggest runs", data.runs, inProjects([column("run", 1, null, "id"), column("name", 2), column("status", 3, null, "nowrap"),
      column("begun", 4, (row) => when(row[4]), "nowrap"), count("points", 5), count("parts", 6, size), count("files", 7),
      count("size of files", 8, size), count("problems", 9)]), { noun: "run", total: () => add(of().runs) }),
    forks(),
    listing("Problems", data.problems, inProjects([column("run", 2, null, "id"), column("attribute", 3, null, "id"), column("kind", 1),
      column("problem", 4), count("values", 5)]),
    { noun: "problem", total: () => of().problem_entries, filters: [{ of: 1, counts: counts("problem_kinds"),
      names: { retry: "tried again next time", permanent: "permanent" } }] }),
    drawn(() => (here() ? [make("p", {}, "Exported from ", ...here().sources.flatMap(([source, n], i) => [i ? ", " : "", name(source), ` (${plural(n, "run")})`]),
      here().times[0] ? `; times ${when(here().times[0])} to ${when(here().times[1])}.` : ".")] : []), { class: "soft" }),
  ];
}

function verifyPage() {
  const levels = () => (here() || data).levels;
  const results = () => (here() || data).results;
  const runs = () => add(results());
  const of = (index, names) => () => {
    const counts = {};
    data.findings.rows.filter(ofProject).forEach((row) => { counts[row[index]] = (counts[row[index]] || 0) + 1; });
    return names && state.project < 0 ? names() : counts;
  };
  const how = data.read_data ? "every row and every file was read" : "manifests, footers and sizes were looked at; --read-data reads everything";
  return [
    head("Verification"),
    projectChoice(),
    drawn(() => [
      tile(number(runs()), "runs checked"),
      tile(number((here() || data).points), "points"),
      tile(number(results().ok || 0), "runs without a finding", "good"),
      tile(number(levels().difference || 0), "differences", levels().difference ? "bad" : null),
      tile(number(levels().unchecked || 0), "not checked", levels().unchecked ? "fair" : null),
      tile(number(levels().note || 0), "notes"),
    ], { class: "tiles", id: "tiles" }),
    section("What was compared with what", make("table", { id: "compared" }, make("caption", {}, `Of each run, ${how}.`),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "the staging area with"), make("th", { scope: "col", class: "number" }, "runs"))),
      make("tbody", {}, ...data.compared.map((one) => make("tr", {},
        make("td", {}, { staging: "", source: "the source: ", target: "the target: " }[one.where], name(one.with)),
        make("td", { class: "number" }, `${number(one.runs)} of ${number(data.runs.total)}`)))))),
    listing("Findings", data.findings, inProjects([column("result", 1, badge(1, { difference: "differs" }), "nowrap"), column("kind", 2, null, "nowrap"), column("found in", 3, null, "nowrap"),
      column("run", 4, null, "id"), column("attribute", 5, null, "id"), column("what", 6)]),
    { noun: "finding", total: () => add(levels()), filters: [
      { of: 1, counts: () => levels(), names: LEVEL_NAMES },
      { of: 2, counts: of(2, () => Object.fromEntries(Object.entries(data.kinds).map(([kind, [, n]]) => [kind, n]))) },
      { of: 3, counts: of(3, () => data.wheres), names: { staging: "in the area", source: "in the source", target: "in the target" } }] }),
    listing("Runs", data.runs, inProjects([column("run", 1, null, "id"), column("result", 2, badge(2), "nowrap"), column("status", 3, null, "nowrap"),
      count("points", 4), count("findings", 5), column("compared", 6, (row) => row[6].join(", ") || "\u2013")]),
    { noun: "run", total: runs, filters: [{ of: 2, counts: () => results() }] }),
    projectTable([["runs", (p) => add(p.results)], ["points", (p) => p.points], ["ok", (p) => p.results.ok || 0],
      ["differences", (p) => p.levels.difference || 0], ["not checked", (p) => p.levels.unchecked || 0], ["notes", (p) => p.levels.note || 0]]),
  ];
}

const page = document.getElementById("page");
page.append(...(data.page === "verify" ? verifyPage() : summaryPage()).filter((part) => part !== null),
  make("footer", {}, `neptune-exporter ${data.version} \u00b7 this page asks no network for anything; --json gives the same figures to programs.`));
