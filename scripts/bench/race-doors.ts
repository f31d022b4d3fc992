/**
 * `npm run bench -- --vs lean`: nodes whose client port is `node:http2` and nodes that write their
 * frames by hand, under the same load in turns. Calls and checks are those of the race with etcd.
 */
import { printTable } from '../../src/cli/output.js';
import { median } from './median.js';
import { requirePrograms } from './packages.js';
import { raceCases, scaledCalls, shownFigure, turnOf } from './race.js';
import type { RaceCase, RaceOptions, Result } from './race.js';
import { startLean, startQuorate } from './raced-quorate.js';

const cases: readonly RaceCase[] = [
  ...raceCases.filter(({ bodies }) => bodies === 1),
  {
    name: 'get 1000 x 1',
    operation: 'get',
    connections: 1000,
    streams: 1,
    bodies: 1,
    calls: 60_000,
    bar: 1,
  },
];

function rowOf(name: string, node: readonly Result[], lean: readonly Result[]): string[] {
  const ratios = lean.map(({ perSecond }, n) => perSecond / (node[n]?.perSecond ?? Number.NaN));
  const both = (of: (result: Result) => number, digits: number): string =>
    [node, lean].map((results) => shownFigure(median(results.map(of)), digits)).join(', ');
  return [
    name,
    both(({ perSecond }) => perSecond, 0),
    `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
    both(({ p50Us }) => p50Us / 1000, 2),
    both(({ p99Us }) => p99Us / 1000, 2),
    both(({ cpuUs }) => cpuUs, 0),
  ];
}

export async function raceDoors({ turns, scale, only }: RaceOptions): Promise<void> {
  requirePrograms({ h2load: 'nghttp2-client' });
  const rows: string[][] = [];
  for (const each of cases.filter(({ name }) => only === undefined || name.includes(only))) {
    const one = { ...each, calls: scaledCalls(each, scale) };
    const [node, lean]: [Result[], Result[]] = [[], []];
    for (let turn = 0; turn < turns; turn++) {
      node.push(await turnOf(startQuorate, one));
      lean.push(await turnOf(startLean, one));
    }
    const row = rowOf(each.name, node, lean);
    process.stderr.write(`${row.join(' | ')}\n`);
    rows.push(row);
  }
  printTable(
    ['case', '/s: node, lean', 'ratio (spread)', 'p50 ms', 'p99 ms', 'CPU us/op (3 nodes)'],
    rows,
  );
}
