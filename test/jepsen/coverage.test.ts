import { expect } from 'chai';
import { coverageOf } from '../../jepsen/coverage.js';
import type { FaultSpan, Operation } from '../../jepsen/history.js';

const second = 1e9;

/** One a tenth of a second, from 0 to 30 s. */
const operations = Array.from({ length: 300 }, (_, n): Operation => ({
  client: 1,
  op: 'read',
  key: 'k',
  callNs: n * 0.1 * second,
  returnNs: n * 0.1 * second + 1e6,
  status: 'ok',
}));

function span(nemesis: string, fromS: number, toS: number, hadEffect = true): FaultSpan {
  const times = { fromNs: (fromS + 0.05) * second, toNs: (toS + 0.05) * second };
  return { nemesis, what: nemesis, target: 'node 1', ...times, hadEffect };
}

describe('the coverage of a run', () => {
  it('is enough when each fault had an effect and operations went on meanwhile', () => {
    const spans = [span('kill', 1, 3), span('pause', 2, 5), span('pause', 6, 7, false)];
    const { problems, nemeses } = coverageOf({
      operations,
      spans,
      requested: ['kill', 'pause'],
      effectsWanted: {},
    });
    expect(problems).to.deep.equal([]);
    expect(nemeses.get('pause')).to.deep.equal({ faults: 2, effective: 1, okOperations: 40 });
  });

  it('rejects a run in which a requested fault never happened, or never did anything', () => {
    const spans = [span('pause', 2, 9, false)];
    const { problems } = coverageOf({
      operations,
      spans,
      requested: ['kill', 'pause'],
      effectsWanted: {},
    });
    expect(problems).to.deep.equal([
      'kill never happened',
      'pause: 0 of 1 faults had an effect, 1 are wanted',
    ]);
  });

  it('rejects a run in which fewer faults had an effect than are wanted of that kind', () => {
    const spans = [span('power', 1, 2), span('power', 3, 4), span('power', 5, 6, false)];
    const requested = ['power'];
    const { problems } = coverageOf({ operations, spans, requested, effectsWanted: { power: 3 } });
    expect(problems).to.deep.equal(['power: 2 of 3 faults had an effect, 3 are wanted']);
    const enough = coverageOf({ operations, spans, requested, effectsWanted: { power: 2 } });
    expect(enough.problems).to.deep.equal([]);
  });

  it('rejects a run in which hardly anything succeeded', () => {
    const spans = [span('kill', 1, 3)];
    const few = operations.slice(0, 30);
    const { problems } = coverageOf({
      operations: few,
      spans,
      requested: ['kill'],
      effectsWanted: {},
    });
    expect(problems).to.deep.equal([
      '30 operations succeeded, 100 are wanted',
      '19 operations succeeded during faults, 20 are wanted',
    ]);
  });
});
