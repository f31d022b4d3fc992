import { expect } from 'chai';
import { Courtesy, Throttle } from '../../src/cluster/throttle.js';
import { ManualClock } from '../support/manual-clock.js';

describe('the pace of a migration', () => {
  it('is its rate, whichever that is at the moment', () => {
    const clock = new ManualClock();
    const throttle = new Throttle(clock);
    throttle.add(100_000);
    expect(throttle.waitMs(100_000)).to.equal(1000);
    clock.jump(500);
    expect(throttle.waitMs(100_000)).to.equal(500);
    expect(throttle.waitMs(1_000_000), 'ten times faster').to.equal(50);
    clock.jump(50);
    expect(throttle.waitMs(1_000_000)).to.equal(0);
  });

  it('leaves busy clients as much time as a piece took, a second at most, and idle ones none', () => {
    const clock = new ManualClock();
    const courtesy = new Courtesy(clock);
    courtesy.begin(1000);
    clock.jump(300);
    expect(courtesy.restMs(1000 + 29), 'below 100 operations a second').to.equal(0);
    expect(courtesy.restMs(1000 + 30)).to.equal(300);
    clock.jump(5000);
    expect(courtesy.restMs(9000)).to.equal(1000);
  });

  it('counts as rest what its rate made it wait', () => {
    const clock = new ManualClock();
    const courtesy = new Courtesy(clock);
    courtesy.begin(0);
    courtesy.rested(100);
    clock.jump(300);
    expect(courtesy.restMs(9000), '200 of work, 100 of rest').to.equal(100);
    courtesy.rested(200);
    expect(courtesy.restMs(9000)).to.equal(0);
  });
});
