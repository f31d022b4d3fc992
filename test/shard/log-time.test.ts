import { expect } from 'chai';
import { LogTime } from '../../src/shard/log-time.js';
import { ManualClock } from '../support/manual-clock.js';

const dayMs = 24 * 3_600_000;

function begun(
  logTimeMs: number,
  clockMedianMs: number,
): {
  clock: ManualClock;
  time: LogTime;
  jumps: number[];
} {
  const clock = new ManualClock();
  const jumps: number[] = [];
  const time = new LogTime(clock, (jumpMs) => jumps.push(jumpMs));
  time.begin(logTimeMs, clockMedianMs);
  return { clock, time, jumps };
}

describe('log time of a leader', () => {
  it('D22: begins at the later one of the log and the median of the clocks', () => {
    expect(begun(5000, 7000).time.now(5000)).to.equal(7000);
    expect(begun(7000, 5000).time.now(7000)).to.equal(7000);
    expect(begun(0, 1234.9).time.now(0), 'whole milliseconds').to.equal(1234);
  });

  it('D22: goes on with the monotonic clock and follows no jump of the wall clock', () => {
    const { clock, time } = begun(0, 1000);
    clock.jump(10.7);
    expect(time.now(0)).to.equal(1010);
    clock.wallOffsetMs += dayMs;
    expect(time.now(0)).to.equal(1010);
    clock.wallOffsetMs -= 5 * dayMs;
    clock.jump(1);
    expect(time.now(0)).to.equal(1011);
  });

  it('D22: never lies below what is applied, and never goes back over elections', () => {
    const { clock, time } = begun(0, 1000);
    expect(time.now(9000)).to.equal(9000);
    let last = 9000;
    for (const median of [20_000, 100, 15_000, 0]) {
      time.begin(last, median);
      clock.jump(5);
      const now = time.now(last);
      expect(now).to.be.at.least(last);
      last = now;
    }
    expect(last).to.equal(20_020);
  });

  it('D22: goes on from a later time that a slot brought along, instead of waiting for it', () => {
    const { time, clock } = begun(1000, 1000);
    expect(time.now(1000)).to.equal(1000);
    expect(time.now(90_000)).to.equal(90_000);
    clock.jump(5);
    expect(time.now(90_000)).to.equal(90_005);
  });

  it('D22: a median more than a day off is reported; the step itself is taken, the median bounds it', () => {
    expect(begun(10 * dayMs, 11 * dayMs).jumps).to.deep.equal([]);
    const ahead = begun(10 * dayMs, 11 * dayMs + 1);
    expect(ahead.jumps).to.deep.equal([dayMs + 1]);
    expect(ahead.time.now(0)).to.equal(11 * dayMs + 1);
    const behind = begun(10 * dayMs, 9 * dayMs - 1);
    expect(behind.jumps).to.deep.equal([-dayMs - 1]);
    expect(behind.time.now(10 * dayMs)).to.equal(10 * dayMs);
    expect(begun(0, 50 * dayMs).jumps, 'a log without commands has no time yet').to.deep.equal([]);
  });
});
