// The canvas of the matrix: colours by loss, weights above, risks beside, the winner marked.
//
// A `scene` holds what there is to paint: `hypotheses`, the decision (`made`), `order` and `places`
// of rows and columns, the `shape` they take, the `span` of the losses, the `colours` of the theme.

import { clamp, figures, shorten, sizeCanvas, token, visible } from "../shared/prelude.js";

// ---------------------------------------------------------------------------------------------
// Colours and places (pure)

/** From alike to unlike on a light page; a dark page has it the other way round. */
const RAMP = ["#1d1a4d", "#26508f", "#3d87a8", "#83b9ad", "#d5dcb6", "#fdf8e4"];

/** The ramp's stops under a theme, from alike to unlike: alike stands out from the page. */
export const rampStops = (theme) => (theme === "dark" ? [...RAMP].reverse() : RAMP);

/** 256 colours along the ramp. @returns {number[][]} red, green, blue of each */
export function ramp(theme) {
  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const stops = rampStops(theme).map(channels);
  return Array.from({ length: 256 }, (_, step) => {
    const place = (step / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    return stops[low].map(
      (value, part) => Math.round(value + (place - low) * (stops[low + 1][part] - value)),
    );
  });
}

/** The tenths around the losses: what the colours span. @returns {[number, number]} */
export function spanOf(rows) {
  let low = 1;
  let high = 0;
  for (const row of rows) {
    if (!row) continue;
    for (let r = 0; r < row.length; r++) {
      if (row[r] < low) low = row[r];
      if (row[r] > high) high = row[r];
    }
  }
  if (low > high) return [0, 1];
  low = Math.floor(low * 10 + 1e-9) / 10;
  return [low, Math.max(low + 0.1, Math.ceil(high * 10 - 1e-9) / 10)];
}

/** Which of the 256 colours a loss has. */
export function colourStep(loss, [low, high]) {
  return clamp(Math.round(((loss - low) / (high - low)) * 255), 0, 255);
}

/**
 * Where everything goes on the canvas, in CSS pixels.
 * @param {number} width of the canvas
 * @param {number} rows
 * @param {number} columns
 */
export function geometry(width, rows, columns) {
  const rowHeight = Math.max(1, Math.min(22, 460 / rows));
  const labelled = width >= 560 && rowHeight >= 13;
  const left = labelled ? Math.round(Math.min(230, width * 0.28)) : 14;
  const margin = width >= 480 ? 104 : 64;
  const columnWidth = Math.min(56, Math.max(20, width - left - margin - 12) / columns);
  return {
    left, top: 46, rowHeight, columnWidth, labelled,
    heatWidth: columnWidth * columns, heatHeight: rowHeight * rows,
    risk: left + columnWidth * columns + 12, riskWidth: margin - 8,
    width, height: 46 + rowHeight * rows + 20,
    lines: rowHeight >= 7 && columnWidth >= 7,
    numbers: rowHeight >= 15 && columnWidth >= 30,
  };
}

/** The place under a point of the canvas as [row, column] of the order, or null beside it. */
export function placeUnder(shape, x, y, rows, columns) {
  const column = Math.floor((x - shape.left) / shape.columnWidth);
  const row = Math.floor((y - shape.top) / shape.rowHeight);
  return column < 0 || row < 0 || column >= columns || row >= rows ? null : [row, column];
}

/** Where a key leads from a place in the matrix; null if the key means nothing here. */
export function cellMove(key, [row, column], rows, columns) {
  const step = {
    ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    PageUp: [-10, 0], PageDown: [10, 0],
  }[key];
  if (step) return [clamp(row + step[0], 0, rows - 1), clamp(column + step[1], 0, columns - 1)];
  if (key === "Home") return [row, 0];
  if (key === "End") return [row, columns - 1];
  return null;
}

// ---------------------------------------------------------------------------------------------
// Painting

const NAMES = ["ink", "ink-2", "muted", "line", "edge", "surface", "sunken", "c2", "accent"];

/** The colours of the theme that `root` is in, ready for a canvas. */
export function coloursOf(root) {
  const theme = root.dataset.theme ?? "light";
  const steps = ramp(theme);
  return {
    ...Object.fromEntries(NAMES.map((name) => [name, token(root, `--lk-${name}`)])),
    theme, steps,
    words: Uint32Array.from(steps, ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r),
    font: token(root, "--lk-sans") || "sans-serif",
  };
}

/** Paint all of the matrix that does not hang on where the reader is. */
export function paintBoard(canvas, scene) {
  const context = cleared(canvas, scene.shape);
  context.font = `11px ${scene.colours.font}`;
  paintHeat(context, scene);
  if (scene.shape.numbers) paintNumbers(context, scene);
  paintWeights(context, scene);
  paintRisks(context, scene);
  if (scene.shape.labelled) paintTexts(context, scene);
  if (!scene.made.whole) return;
  paintMarks(context, scene);
  paintWinner(context, scene);
}

/** The canvas's context, empty; the canvas is only made anew where its size has changed. */
function cleared(canvas, { width, height }) {
  const same = canvas.style.width === `${width}px` && canvas.style.height === `${height}px`
    && canvas.width === Math.round(width * devicePixelRatio);
  if (!same) return sizeCanvas(canvas, width, height);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return context;
}

/** One pixel a cell, then stretched: 256 x 256 cells cost no more than a small picture. */
function paintHeat(context, { made, order, shape, span: [low, high], colours }) {
  const { left, top, heatWidth, heatHeight, columnWidth, rowHeight } = shape;
  const [many, much] = [order.rows.length, order.columns.length];
  const image = new ImageData(much, many);
  const words = new Uint32Array(image.data.buffer);
  const scale = 255 / (high - low);
  for (let y = 0; y < many; y++) {
    const losses = made.losses[order.rows[y]];
    if (!losses) continue;
    for (let x = 0; x < much; x++) {
      const step = (losses[order.columns[x]] - low) * scale + 0.5;
      words[y * much + x] = colours.words[Math.min(255, Math.max(0, step)) | 0];
    }
  }
  const small = document.createElement("canvas");
  [small.width, small.height] = [much, many];
  small.getContext("2d").putImageData(image, 0, 0);
  context.fillStyle = colours.sunken;
  context.fillRect(left, top, heatWidth, heatHeight);
  context.imageSmoothingEnabled = Math.min(columnWidth, rowHeight) * devicePixelRatio < 1;
  context.drawImage(small, left, top, heatWidth, heatHeight);
  context.fillStyle = colours.surface;
  if (shape.lines) {
    const [across, down] = [(x) => left + x * columnWidth - 0.5, (y) => top + y * rowHeight - 0.5];
    for (let x = 1; x < much; x++) context.fillRect(across(x), top, 1, heatHeight);
    for (let y = 1; y < many; y++) context.fillRect(left, down(y), heatWidth, 1);
  }
  context.globalAlpha = 0.75; // samples that are left out go under a veil
  order.columns.forEach((column, x) => {
    if (!made.without.has(made.columns[column].index)) return;
    context.fillRect(left + x * columnWidth, top, columnWidth, heatHeight);
  });
  context.globalAlpha = 1;
}

function paintNumbers(context, { made, order, shape, span, colours }) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  order.rows.forEach((row, y) => order.columns.forEach((column, x) => {
    const loss = made.losses[row]?.[column];
    if (loss === undefined) return;
    const [r, g, b] = colours.steps[colourStep(loss, span)];
    context.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#14181e" : "#ffffff";
    const middle = shape.left + (x + 0.5) * shape.columnWidth;
    context.fillText(loss.toFixed(2), middle, middleOf(shape, y));
  }));
}

const middleOf = (shape, y) => shape.top + (y + 0.5) * shape.rowHeight + 0.5;

function paintWeights(context, { made, order, shape: { left, top, columnWidth }, colours }) {
  const most = Math.max(...made.weights);
  const gap = columnWidth >= 4 ? 1 : 0;
  const edge = (x) => Math.round((left + x * columnWidth) * devicePixelRatio) / devicePixelRatio;
  context.fillStyle = colours["ink-2"];
  order.columns.forEach((column, x) => {
    const weight = made.weights[column];
    if (!weight) return;
    const height = Math.max(0.75, (weight / most) * (top - 18));
    context.fillRect(edge(x), top - 4 - height, edge(x + 1) - edge(x) - gap, height);
  });
  context.fillStyle = colours.muted;
  context.textAlign = "left";
  context.textBaseline = "top";
  context.fillText(`weights, the largest ${figures(most)}`, left, 0);
}

function paintRisks(context, { made, order, shape, colours }) {
  const { risk: left, riskWidth, top, rowHeight, heatHeight } = shape;
  const known = made.risk.filter(Number.isFinite);
  if (!known.length) return;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const across = (risk) => left + 6 + ((risk - low) / (high - low || 1)) * (riskWidth - 14);
  const size = clamp(rowHeight * 0.5, 1.5, 7);
  context.fillStyle = colours.line;
  context.fillRect(left, top, 1, heatHeight);
  context.fillStyle = colours.edge;
  order.rows.forEach((row, y) => {
    const risk = made.risk[row];
    if (!Number.isFinite(risk) || (made.whole && row === made.best)) return;
    const middle = top + (y + 0.5) * rowHeight;
    context.fillRect(across(risk) - size / 2, middle - size / 2, Math.max(size, 3), size);
  });
  context.fillStyle = colours.muted;
  context.textBaseline = "top";
  context.textAlign = "left";
  context.fillText("risk", left, top - 16);
  context.fillText(figures(low), left, top + heatHeight + 5);
  context.textAlign = "right";
  if (riskWidth > 70) context.fillText(figures(high), left + riskWidth - 2, top + heatHeight + 5);
}

function paintTexts(context, { hypotheses, made, order, shape, colours }) {
  context.textBaseline = "middle";
  context.textAlign = "left";
  order.rows.forEach((row, y) => {
    const won = made.whole && row === made.best;
    context.fillStyle = won ? colours.ink : colours["ink-2"];
    context.font = `${won ? "600 " : ""}12px ${colours.font}`;
    const text = visible(hypotheses[row].text).replaceAll("␣", " ");
    context.fillText(fitted(context, text, shape.left - 12), 2, middleOf(shape, y));
  });
}

/** As much of a text as the room takes. */
function fitted(context, text, room) {
  const fits = (part) => context.measureText(part).width <= room;
  if (fits(text)) return text;
  let [few, many] = [1, Math.min(text.length, 200)];
  while (few < many) {
    const middle = Math.ceil((few + many) / 2);
    if (fits(shorten(text, middle))) few = middle;
    else many = middle - 1;
  }
  return shorten(text, few);
}

/** A frame around the winner's row (a pointer where a frame would hide others), and a diamond. */
function paintWinner(context, { made, places, shape, colours }) {
  const { left, top, rowHeight, heatWidth } = shape;
  const y = top + places.rows[made.best] * rowHeight;
  const middle = y + rowHeight / 2;
  if (rowHeight < 6) {
    outline(context, [[left - 2, middle], [left - 10, middle - 5], [left - 10, middle + 5]]);
    context.fillStyle = colours.c2;
    context.fill();
  } else {
    context.lineWidth = 2;
    context.strokeStyle = colours.surface;
    context.strokeRect(left - 3, y - 3, heatWidth + 6, rowHeight + 6);
    context.strokeStyle = colours.c2;
    context.strokeRect(left - 1, y - 1, heatWidth + 2, rowHeight + 2);
  }
  const x = shape.risk + 6 + winnersShare(made) * (shape.riskWidth - 14);
  outline(context, [[x, middle - 6], [x + 6, middle], [x, middle + 6], [x - 6, middle]]);
  context.lineWidth = 3;
  context.strokeStyle = colours.surface;
  context.stroke();
  context.fillStyle = colours.c2;
  context.fill();
}

/** The members of the set, numbered, and a tick wherever the next row is of another kind. */
function paintMarks(context, { order, places, shape, colours, marks }) {
  const { left, top, heatWidth, rowHeight } = shape;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = `600 10px ${colours.font}`;
  marks.chosen.forEach((row, at) => {
    const [x, y] = [left + heatWidth + 14, middleOf(shape, places.rows[row])];
    context.beginPath();
    context.arc(x, y, rowHeight < 12 ? 2.5 : 6.5, 0, 2 * Math.PI);
    context.fillStyle = colours.accent;
    context.fill();
    context.fillStyle = colours.surface;
    if (rowHeight >= 12) context.fillText(String(at + 1), x, y);
  });
  if (!marks.clusters || rowHeight < 3) return;
  context.fillStyle = colours.ink;
  order.rows.forEach((row, y) => {
    const next = order.rows[y + 1];
    if (next === undefined || marks.clusters[row] === marks.clusters[next]) return;
    context.fillRect(left - 6, top + (y + 1) * rowHeight - 0.5, 6, 1);
  });
}

/** Where the winner stands between the least and the greatest risk: 0, but for recorded ties. */
function winnersShare({ risk, best }) {
  const [low, high] = [Math.min(...risk), Math.max(...risk)];
  return (risk[best] - low) / (high - low || 1);
}

function outline(context, points) {
  context.beginPath();
  points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
}

/**
 * Paint where the reader is: the selected cell, and a cross through the cell that is pointed at.
 * @param {HTMLCanvasElement} canvas
 * @param {object} scene
 * @param {[number, number]} cell hypothesis and column
 * @param {[number, number] | null} pointed
 */
export function paintCell(canvas, { places, shape, colours }, [row, column], pointed) {
  const context = cleared(canvas, shape);
  const { left, top, columnWidth, rowHeight, heatWidth, heatHeight } = shape;
  const across = (each) => left + (places.columns[each] + 0.5) * columnWidth;
  const down = (each) => top + (places.rows[each] + 0.5) * rowHeight;
  const [x, y] = [across(column), down(row)];
  context.fillStyle = colours.accent;
  context.fillRect(x - 1.5, top - 4, 3, 4);
  context.fillRect(left + heatWidth + 1, y - 1.5, 6, 3);
  if (pointed) {
    context.globalAlpha = 0.8;
    context.fillRect(across(pointed[1]) - 0.5, top, 1, heatHeight);
    context.fillRect(left, down(pointed[0]) - 0.5, heatWidth, 1);
    context.globalAlpha = 1;
  }
  const [wide, tall] = [Math.max(columnWidth, 5) + 2, Math.max(rowHeight, 5) + 2];
  for (const [ink, line] of [[colours.surface, 3.5], [colours.accent, 2]]) {
    context.lineWidth = line;
    context.strokeStyle = ink;
    context.strokeRect(x - wide / 2, y - tall / 2, wide, tall);
  }
}
