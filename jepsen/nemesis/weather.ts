/** Bad links: some packets are lost, or hardly anything goes through. */
import { allLinks } from '../network.js';
import { namesOf, type Nemesis } from './nemesis.js';

export const loss: Nemesis = {
  name: 'loss',
  holdMs: [2000, 8000],
  gapMs: [2000, 8000],
  probe: ({ network }) => Promise.resolve(network.cannotLose),
  inject: async ({ cluster: { network }, nodes }, random) => {
    const percent = random.pick([2, 10, 30]);
    const links = random.shuffled(allLinks(nodes)).slice(0, random.integer(2, nodes.length ** 2));
    const before = await network.touched();
    await network.lose(links, percent);
    return {
      what: `loss of ${percent} %`,
      target: `${links.length} links`,
      heal: () => network.lose([], 0),
      verifyEffect: async () => (await network.touched()) > before,
    };
  },
};

export const slow: Nemesis = {
  name: 'slow',
  holdMs: [2000, 8000],
  gapMs: [2000, 8000],
  probe: ({ network }) => Promise.resolve(network.cannotSlow),
  inject: async ({ cluster: { network }, nodes }, random) => {
    const rate = random.pick([64, 256, 1000]);
    const senders = random.shuffled(nodes).slice(0, random.integer(1, 2));
    const before = await network.touched();
    await network.slowDown(senders, rate);
    return {
      what: `only ${rate} kbit/s from`,
      target: namesOf(senders),
      heal: () => network.slowDown([], 0),
      verifyEffect: async () => (await network.touched()) > before,
    };
  },
};
