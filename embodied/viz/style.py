"""The style sheet of the report: light and dark, screen and paper, nothing loaded from anywhere."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1c1f1d; --soft: #565d59; --faint: #767d78; --line: #e4e1d9;
  --accent: #0b6f68; --wash: #0b6f6818; --good: #25773a; --bad: #b13a27; --lamp: #e0a100;
  --track: #eeebe3; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #121413; --card: #191c1b; --ink: #eceeec; --soft: #aab0ac; --faint: #868d89; --line: #2b302d;
  --accent: #52c7bb; --wash: #52c7bb22; --good: #6fca88; --bad: #f08b76; --lamp: #ffd04d;
  --track: #262a28; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
  sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 44px 28px 72px; }
h1 { font-size: 42px; line-height: 1.08; letter-spacing: -0.025em; font-weight: 680; margin: 0;
  overflow-wrap: anywhere; }
h2 { font-size: 20px; letter-spacing: -0.01em; font-weight: 650; margin: 0 0 4px; }
h3 { font-size: 13px; font-weight: 600; margin: 0 0 6px; }
p { margin: 0; }
code, .mono { font: 0.92em/1.45 ui-monospace, "SF Mono", SFMono-Regular, Menlo, Consolas, monospace; }
section { margin-top: 52px; }
section > p.lead { color: var(--soft); max-width: 100ch; margin-bottom: 18px; }
.soft { color: var(--soft); } .faint { color: var(--faint); } .num { font-variant-numeric: tabular-nums; }
.empty { color: var(--soft); border: 1px dashed var(--line); border-radius: 10px; padding: 18px 20px; }

header { display: grid; grid-template-columns: auto 1fr auto; gap: 6px 20px; align-items: center; }
header .glyph { width: 68px; height: 68px; color: var(--accent); }
header .sentence { font-size: 17px; color: var(--soft); margin-top: 6px; max-width: 68ch; }
.pill { display: inline-flex; align-items: center; gap: 8px; border: 1px solid var(--line);
  border-radius: 99px;
  padding: 5px 13px; font-size: 13px; font-weight: 560; background: var(--card); white-space: nowrap; }
.pill::before { content: ""; width: 8px; height: 8px; border-radius: 50%; background: var(--faint); }
.pill.running::before { background: var(--lamp);
  box-shadow: 0 0 0 4px color-mix(in srgb, var(--lamp) 26%, transparent); }
.pill.finished::before { background: var(--good); }
.meta { display: flex; flex-wrap: wrap; gap: 4px 26px; margin: 24px 0 0; padding: 14px 0 0;
  border-top: 1px solid var(--line); font-size: 13px; }
.meta div { display: flex; gap: 8px; min-width: 0; } .meta dt { color: var(--faint); }
.meta dd { margin: 0; overflow-wrap: anywhere; }

.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px; margin-top: 26px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 18px 20px 16px; }
.tile b { display: block; font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; font-weight: 660;
  font-variant-numeric: tabular-nums; }
.tile.first b { color: var(--accent); } .tile span { font-size: 13px; color: var(--soft); }
.tile small { font-size: 13px; color: var(--faint); display: block; }

.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: 18px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  overflow: hidden;
  display: flex; flex-direction: column; }
figure img { display: block; width: 100%; height: auto; background: var(--track); }
figcaption { padding: 13px 16px 15px; font-size: 14px; flex: 1; }
figcaption q { font-weight: 590; quotes: "\\201c" "\\201d"; display: block; line-height: 1.4; }
.verdict { font-weight: 600; } .verdict.good { color: var(--good); } .verdict.bad { color: var(--bad); }
.filmstrip { display: block; width: 100%; height: auto; border-top: 1px solid var(--line); }
@media (prefers-reduced-motion: reduce) { figure .moving { display: none; } }

.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 18px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 16px 18px 12px;
  min-width: 0; }
.multiples { display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: 14px; }
.multiples h3 { font-size: 12px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--faint); font: 11px ui-sans-serif, system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
svg .value { fill: var(--ink); font-weight: 640; font-size: 13px; }
.grid { stroke: var(--line); } .axis { stroke: var(--faint); } .gate { stroke: var(--faint);
  stroke-dasharray: 3 4; }
.curve { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; }
.area { fill: var(--wash); } .band { fill: var(--accent); opacity: 0.2; } .dot { fill: var(--accent); }
.whisker { stroke: var(--accent); opacity: 0.4; stroke-width: 5; stroke-linecap: round; }
.ring { fill: var(--card); stroke: var(--accent); stroke-width: 1.8; }

.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 14px; }
table { width: 100%; border-collapse: collapse; font-size: 14px; }
th { text-align: left; font-size: 12px; font-weight: 560; color: var(--faint); padding: 11px 14px 8px;
  white-space: nowrap; }
td { padding: 8px 14px; border-top: 1px solid var(--line); vertical-align: middle; }
td.num, th.num { text-align: right; white-space: nowrap; } td small { color: var(--faint); display: block;
  font-size: 12.5px; }
tr.best td { background: var(--wash); } tr.best td:first-child { font-weight: 640; }
td code { overflow-wrap: anywhere; }
.bar { position: relative; display: block; min-width: 150px; height: 16px; }
.bar::before { content: ""; position: absolute; inset: 6.5px 0; background: var(--track);
  border-radius: 2px; }
.bar i { position: absolute; top: 4.5px; height: 7px; border-radius: 4px; background: var(--accent);
  opacity: 0.38; }
.bar b { position: absolute; top: 2px; width: 3px; height: 12px; margin-left: -1.5px; border-radius: 2px;
  background: var(--accent); }
.bar u { position: absolute; top: 0; width: 1px; height: 16px; background: var(--faint); opacity: 0.75; }
.bar.other i, .bar.other b { background: var(--faint); }
.chip { display: inline-block; border-radius: 99px; padding: 1px 10px; font-size: 12.5px; font-weight: 560;
  border: 1px solid var(--line); color: var(--soft); white-space: nowrap; }
.chip.admitted, .chip.mastered { color: var(--good);
  border-color: color-mix(in srgb, var(--good) 40%, transparent); }
.chip.deprecated, .chip.revoked, .chip.failed, .chip.rejected { color: var(--bad);
  border-color: color-mix(in srgb, var(--bad) 40%, transparent); }

details > summary { cursor: pointer; list-style: none; }
details > summary::-webkit-details-marker { display: none; }
.ledger { background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden; }
.ledger details + details { border-top: 1px solid var(--line); }
.ledger summary { display: grid; grid-template-columns: 92px minmax(0, 1fr) auto 18px; gap: 14px;
  align-items: baseline;
  padding: 10px 18px; }
.ledger summary::after { content: "+"; color: var(--faint); text-align: right; }
.ledger details[open] summary::after { content: "\\2212"; }
.ledger summary:hover, .more > summary:hover { background: var(--wash); }
.ledger dl { margin: 0; padding: 2px 18px 16px 124px; display: grid;
  grid-template-columns: 132px minmax(0, 1fr);
  gap: 4px 14px; font-size: 14px; }
.ledger dt { color: var(--faint); } .ledger dd { margin: 0; overflow-wrap: anywhere; }
.more > summary { padding: 11px 18px; color: var(--accent); font-weight: 560; font-size: 14px;
  border-top: 1px solid var(--line); }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
footer { margin-top: 60px; padding-top: 18px; border-top: 1px solid var(--line); font-size: 13px;
  color: var(--soft); }
footer p + p { margin-top: 6px; } footer p { max-width: 90ch; }

@media (max-width: 820px) { main { padding: 26px 16px 48px; } .pair { grid-template-columns: 1fr; }
  .tiles { grid-template-columns: 1fr 1fr; } .gallery { grid-template-columns: 1fr 1fr; gap: 12px; } h1 {
  font-size: 32px; }
  header { grid-template-columns: auto 1fr; } header .pill { grid-column: 1 / -1; justify-self: start; }
  .ledger dl { padding-left: 18px; grid-template-columns: 1fr; gap: 0; } .ledger dd { margin-bottom: 8px; }
  .ledger summary { grid-template-columns: 74px minmax(0, 1fr) 18px; } .ledger .chip { display: none; } }
@media print { body { background: #fff; } .card, figure, .tile, .scroll { break-inside: avoid; }
  figure .moving { display: none; } }
"""
