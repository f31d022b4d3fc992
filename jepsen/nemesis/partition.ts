/** Links that carry nothing: halves, one way only, a ring, a leader on its own. */
import { someLeader, type Fault, type Field, type Nemesis } from './nemesis.js';
import { allLinks, type Link } from '../network.js';
import type { Random } from '../random.js';

const kinds = ['half', 'half', 'one way', 'ring', 'leader alone', 'leader alone'] as const;

export const partition: Nemesis = {
  name: 'partition',
  holdMs: [1000, 8000],
  gapMs: [3000, 10_000],
  probe: ({ network }) => Promise.resolve(network.cannotCut),
  inject,
};

async function inject(field: Field, random: Random): Promise<Fault | undefined> {
  const { network } = field.cluster;
  const drawn = random.pick(kinds);
  // Among three everybody is a neighbour of everybody.
  const kind = drawn === 'ring' && field.nodes.length < 4 ? 'half' : drawn;
  const leader = kind === 'leader alone' ? await someLeader(field, random) : undefined;
  const order = random.shuffled(field.nodes);
  const first = leader ?? order[0];
  if (first === undefined) return undefined;
  const before = await network.touched();
  const links = linksOf(kind, order, first, random);
  await network.cut(links);
  return {
    what: `partition (${kind})`,
    target: links.map(({ from, to }) => `${from}>${to}`).join(' '),
    heal: () => network.cut([]),
    verifyEffect: async () => (await network.touched()) > before,
  };
}

function linksOf(
  kind: (typeof kinds)[number],
  order: readonly number[],
  first: number,
  random: Random,
): readonly Link[] {
  const links = allLinks(order);
  switch (kind) {
    case 'half': {
      const side = new Set(order.slice(0, Math.floor(order.length / 2)));
      return links.filter(({ from, to }) => side.has(from) !== side.has(to));
    }
    case 'one way': {
      const outward = random.chance(0.5);
      return links.filter(({ from, to }) => (outward ? from : to) === first);
    }
    case 'ring':
      // Everybody sees its two neighbours in the ring, and nobody all others.
      return links.filter(({ from, to }) => {
        const apart = Math.abs(order.indexOf(from) - order.indexOf(to));
        return apart !== 1 && apart !== order.length - 1;
      });
    case 'leader alone':
      return links.filter(({ from, to }) => from === first || to === first);
  }
}
