import { expect } from 'chai';
import type { Cluster } from '../../jepsen/cluster.js';
import type { Fault, Field, Nemesis } from '../../jepsen/nemesis/nemesis.js';
import { Random } from '../../jepsen/random.js';
import { Schedule } from '../../jepsen/schedule.js';

/** What the faults of these tests do is told to `events`; they need no cluster. */
const field: Field = {
  cluster: {} as Cluster,
  nodes: [1, 2, 3],
  taken: new Set(),
  keys: () => [],
  folder: '',
  volumes: 'none',
  violations: [],
};

function nemesis(name: string, events: string[], fields: Partial<Nemesis> = {}): Nemesis {
  const inject = (_field: Field, random: Random): Promise<Fault> => {
    const target = String(random.integer(1, 1000));
    events.push(`+${name}`);
    return Promise.resolve({
      what: name,
      target,
      heal: () => {
        events.push(`-${name}`);
        return Promise.resolve();
      },
      verifyEffect: () => Promise.resolve(true),
    });
  };
  return {
    name,
    holdMs: [5, 10],
    gapMs: [1, 5],
    probe: () => Promise.resolve(undefined),
    inject,
    ...fields,
  };
}

function scheduleOf(nemeses: readonly Nemesis[], durationMs: number, seed = 1): Schedule {
  const random = new Random(String(seed));
  const nowNs = (): number => performance.now() * 1e6;
  const rest = { gapFactor: 1, effectsWanted: {}, nowNs, say: () => undefined };
  return new Schedule({ field, nemeses, random, durationMs, ...rest });
}

describe('the schedule of faults', () => {
  it('draws the same faults from the same seed, and others from another', async () => {
    const targets = async (seed: number): Promise<readonly string[]> => {
      const schedule = scheduleOf([nemesis('a', [])], 200, seed);
      await schedule.run();
      return schedule.spans.map(({ target }) => target);
    };
    const [first, again, other] = [await targets(7), await targets(7), await targets(8)];
    // How many there is time for is up to the machine.
    const both = Math.min(first.length, again.length);
    expect(both).to.be.greaterThan(0);
    expect(again.slice(0, both)).to.deep.equal(first.slice(0, both));
    expect(other[0]).to.not.equal(first[0]);
  });

  it('breaks nothing else while a fault that must be alone lasts', async () => {
    const events: string[] = [];
    const alone = nemesis('alone', events, { isAlone: true });
    await scheduleOf([nemesis('a', events), nemesis('b', events), alone], 500).run();
    const own = events.flatMap((event, at) => (event === '+alone' ? [at] : []));
    expect(own.length).to.be.greaterThan(0);
    for (const at of own) {
      expect(events[at + 1]).to.equal('-alone');
      const before = events.slice(0, at);
      const open = before.filter((e) => e.startsWith('+')).length * 2 - before.length;
      expect(open, 'faults that last').to.equal(0);
    }
  });

  it('goes on while a nemesis has had no effect, and heals everything', async () => {
    const events: string[] = [];
    const durationMs = 500;
    const begunAt = performance.now();
    const slow = nemesis('late', events);
    const late: Nemesis = {
      ...slow,
      // There is nobody to do it to until the time is over.
      inject: (...given) =>
        performance.now() - begunAt > durationMs
          ? slow.inject(...given)
          : Promise.resolve(undefined),
    };
    const schedule = scheduleOf([nemesis('a', events), late], durationMs);
    await schedule.run();
    expect(events).to.include('+late');
    const begun = events.filter((event) => event.startsWith('+'));
    expect(events.filter((event) => event.startsWith('-'))).to.have.lengthOf(begun.length);
    expect(schedule.spans).to.have.lengthOf(begun.length);
  });

  it('tells which nemesis could not heal what it broke', async () => {
    const broken = nemesis('broken', [], {
      inject: () =>
        Promise.resolve({
          what: 'x',
          target: 'y',
          heal: () => Promise.reject(new Error('no such file')),
          verifyEffect: () => Promise.resolve(true),
        }),
    });
    const run = scheduleOf([broken, nemesis('a', [])], 1000).run();
    const error: unknown = await run.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(String(error)).to.match(/broken: Error: no such file/);
  });
});
