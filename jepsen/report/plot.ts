/**
 * One picture of a run, as SVG: how long operations took, how many were answered, and when which
 * fault was in force.
 */
import type { FaultSpan, Operation, OperationStatus } from '../history.js';

export interface PlotInput {
  readonly title: string;
  readonly operations: readonly Operation[];
  readonly faults: readonly FaultSpan[];
}

const width = 1200;
const left = 70;
const plotWidth = width - left - 20;
/** Top and height of a panel, in pixels. */
interface Panel {
  readonly top: number;
  readonly height: number;
}
const latency: Panel = { top: 50, height: 260 };
const answers: Panel = { top: 350, height: 180 };
const faultsTop = 555;
const faultHeight = 16;
const bucketsMax = 240;

const colours: Record<OperationStatus, string> = {
  ok: '#4c9f70',
  fail: '#e0a030',
  info: '#c0392b',
};
const lines = [
  { share: 0.5, name: 'p50', colour: '#1f4e79' },
  { share: 0.99, name: 'p99', colour: '#7aa6d6' },
  { share: 1, name: 'max', colour: '#c9b8d8' },
] as const;
const shades = ['#d7263d', '#f46036', '#2e294e', '#1b998b', '#6a4c93', '#8a5a00'];

/** Operations that ended within one stretch of time. */
interface Bucket {
  /** Of those that were ok, ascending, in milliseconds. */
  readonly tookMs: number[];
  readonly counts: Record<OperationStatus, number>;
}

export function plotSvg({ title, operations, faults }: PlotInput): string {
  const ends = [...operations.map((one) => one.returnNs), ...faults.map(({ toNs }) => toNs)];
  const endNs = Math.max(
    1e9,
    ends.reduce((a, b) => Math.max(a, b), 0),
  );
  const buckets = bucketsOf(operations, endNs);
  const xOf = (ns: number): number => left + (ns / endNs) * plotWidth;
  const nemeses = [...new Set(faults.map(({ nemesis }) => nemesis))];
  const height = faultsTop + nemeses.length * (faultHeight + 4) + 40;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
      `viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    '<rect width="100%" height="100%" fill="white"/>',
    text(left, 24, title, 'font-size="16"'),
    ...faultShapes(faults, nemeses, xOf),
    ...latencyPanel(buckets),
    ...answersPanel(buckets, endNs),
    ...timeAxis(endNs, xOf, height - 12),
    '</svg>',
    '',
  ].join('\n');
}

function bucketsOf(operations: readonly Operation[], endNs: number): readonly Bucket[] {
  const buckets = Array.from({ length: bucketsMax }, (): Bucket => {
    return { tookMs: [], counts: { ok: 0, fail: 0, info: 0 } };
  });
  for (const { callNs, returnNs, status } of operations) {
    const bucket = buckets[Math.min(bucketsMax - 1, Math.floor((returnNs / endNs) * bucketsMax))];
    if (bucket === undefined) continue;
    bucket.counts[status]++;
    if (status === 'ok') bucket.tookMs.push((returnNs - callNs) / 1e6);
  }
  for (const { tookMs } of buckets) tookMs.sort((a, b) => a - b);
  return buckets;
}

const bucketX = (n: number): number => left + ((n + 0.5) / bucketsMax) * plotWidth;

/** 0.1 ms to 100 s on a scale of powers of ten. */
function latencyPanel(buckets: readonly Bucket[]): string[] {
  const decades = 6;
  const yOf = (ms: number): number => {
    const share = (Math.log10(Math.max(0.1, Math.min(1e5, ms))) + 1) / decades;
    return latency.top + latency.height * (1 - share);
  };
  const grid = [0.1, 1, 10, 100, 1000, 10_000, 100_000].flatMap((ms) => [
    rule(yOf(ms)),
    text(left - 6, yOf(ms) + 4, ms < 1000 ? `${ms} ms` : `${ms / 1000} s`, 'text-anchor="end"'),
  ]);
  const curves = lines.map(({ share, name, colour }, n) => {
    const points = buckets.flatMap(({ tookMs }, at) => {
      const took = tookMs[Math.min(tookMs.length - 1, Math.floor(share * tookMs.length))];
      return took === undefined ? [] : [`${bucketX(at).toFixed(1)},${yOf(took).toFixed(1)}`];
    });
    const label = text(width - 130 + n * 40, 24, name, `fill="${colour}"`);
    return `<polyline fill="none" stroke="${colour}" points="${points.join(' ')}"/>${label}`;
  });
  return [...grid, ...curves];
}

/** Operations a second, by how they ended. */
function answersPanel(buckets: readonly Bucket[], endNs: number): string[] {
  const seconds = endNs / 1e9 / bucketsMax;
  const rates = buckets.map(({ counts }) => (counts.ok + counts.fail + counts.info) / seconds);
  const most = Math.max(1, ...rates);
  const { top, height } = answers;
  const bars = buckets.flatMap(({ counts }, n) => {
    let below = 0;
    return (['ok', 'fail', 'info'] as const).map((status) => {
      const size = (counts[status] / seconds / most) * height;
      below += size;
      const x = (bucketX(n) - plotWidth / bucketsMax / 2).toFixed(1);
      const y = (top + height - below).toFixed(1);
      const w = (plotWidth / bucketsMax).toFixed(1);
      return `<rect x="${x}" y="${y}" width="${w}" height="${size.toFixed(1)}" fill="${colours[status]}"/>`;
    });
  });
  const legend = (['ok', 'fail', 'info'] as const).map((status, n) =>
    text(width - 130 + n * 40, top - 8, status, `fill="${colours[status]}"`),
  );
  return [
    ...bars,
    ...legend,
    rule(top + height),
    text(left - 6, top + 10, `${Math.round(most)}/s`, 'text-anchor="end"'),
    text(left - 6, top + height + 4, '0', 'text-anchor="end"'),
  ];
}

/** A bar for each fault below, and its shade over both panels; hollow: it had no effect. */
function faultShapes(
  faults: readonly FaultSpan[],
  nemeses: readonly string[],
  xOf: (ns: number) => number,
): string[] {
  const shapes = faults.map(({ nemesis, what, target, fromNs, toNs, hadEffect }) => {
    const row = nemeses.indexOf(nemesis);
    const colour = shades[row % shades.length] ?? 'grey';
    const place = `x="${xOf(fromNs).toFixed(1)}" width="${Math.max(1, xOf(toNs) - xOf(fromNs)).toFixed(1)}"`;
    const y = faultsTop + row * (faultHeight + 4);
    const fill = hadEffect ? `fill="${colour}"` : `fill="none" stroke="${colour}"`;
    const shade = `y="${latency.top}" height="${answers.top + answers.height - latency.top}"`;
    return (
      `<rect ${place} ${shade} fill="${colour}" opacity="0.12"/>` +
      `<rect ${place} y="${y}" height="${faultHeight}" ${fill}>` +
      `<title>${escaped(`${what} ${target}`)}</title></rect>`
    );
  });
  const names = nemeses.map((name, row) =>
    text(left - 6, faultsTop + row * (faultHeight + 4) + 12, name, 'text-anchor="end"'),
  );
  return [...shapes, ...names];
}

function timeAxis(endNs: number, xOf: (ns: number) => number, y: number): string[] {
  const seconds = endNs / 1e9;
  const step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find((one) => seconds / one <= 12) ?? 1800;
  const marks = Array.from({ length: Math.floor(seconds / step) + 1 }, (_, n) => n * step);
  return marks.map((mark) => text(xOf(mark * 1e9), y, `${mark} s`, 'text-anchor="middle"'));
}

function rule(y: number): string {
  const at = y.toFixed(1);
  return `<line x1="${left}" x2="${left + plotWidth}" y1="${at}" y2="${at}" stroke="#ddd"/>`;
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`;
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
