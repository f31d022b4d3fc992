import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { Drive, type DriveOptions } from '../../../src/cli/bench/driver.js';
import type { Action } from '../../../src/cli/bench/workload.js';
import { KvError } from '../../../src/errors.js';

const closed: DriveOptions = {
  clients: 4,
  operations: 100,
  seconds: Infinity,
  ratePerSecond: 0,
  sessions: false,
  stop: new AbortController().signal,
};

const quick = (): Action => ({ kind: 'read', run: () => Promise.resolve(true) });

describe('the driver of quorate bench', () => {
  it('closed loop: never more at a time than there are clients, and exactly so many in all', async () => {
    let [now, most] = [0, 0];
    const next = (): Action => ({
      kind: 'update',
      run: async () => {
        most = Math.max(most, ++now);
        await new Promise(setImmediate);
        now -= 1;
        return true;
      },
    });
    const { kinds, notBegun, interrupted } = await new Drive(next, closed).run();
    expect(kinds.get('update')?.latencyUs.totalCount).to.equal(100);
    expect(most).to.equal(4);
    expect({ notBegun, interrupted }).to.deep.equal({ notBegun: 0, interrupted: false });
  });

  it('open loop: who waits behind a slow operation is slow, from when it was due', async () => {
    const [stallMs, ratePerSecond] = [300, 200];
    let begun = 0;
    const next = (): Action => ({
      kind: 'read',
      run: async () => {
        if (begun++ === 0) await sleep(stallMs);
        return true;
      },
    });
    const options = { ...closed, clients: 1, operations: 60, ratePerSecond };
    const { kinds, lateUs } = await new Drive(next, options).run();
    const latencyUs = kinds.get('read')?.latencyUs;
    expect(latencyUs?.totalCount).to.equal(60);
    // All 60 were due within the stall: the tenth, at 50 ms, cannot have ended before 300.
    expect(latencyUs?.maxValue).to.be.at.least(stallMs * 1000 - 1000);
    expect(latencyUs?.getValueAtPercentile(50)).to.be.at.least((stallMs - 155) * 1000);
    expect(lateUs.maxValue).to.be.at.least((stallMs - 10) * 1000);
  });

  it('open loop: begins none before it is due, and says how many were due and not begun', async () => {
    const started = performance.now();
    const paced = { ...closed, operations: 21, ratePerSecond: 200 };
    await new Drive(quick, paced).run();
    expect(performance.now() - started).to.be.at.least(99);

    const never = new AbortController();
    const slow = (): Action => ({ kind: 'read', run: () => sleep(100, true) });
    const options = {
      ...closed,
      clients: 1,
      operations: Infinity,
      seconds: 0.1,
      stop: never.signal,
    };
    const { notBegun, kinds } = await new Drive(slow, { ...options, ratePerSecond: 1000 }).run();
    expect(notBegun).to.be.greaterThan(0);
    expect(notBegun + (kinds.get('read')?.latencyUs.totalCount ?? 0)).to.equal(100);
  });

  it('stopped: begins nothing more, waits for what was begun, and tells what it has', async () => {
    const stop = new AbortController();
    let ended = 0;
    const next = (): Action => ({
      kind: 'read',
      run: async () => {
        await new Promise(setImmediate);
        if (++ended === 10) stop.abort();
        return true;
      },
    });
    const options = { ...closed, operations: Infinity, stop: stop.signal };
    const figures = await new Drive(next, options).run();
    expect(figures.interrupted).to.equal(true);
    expect(figures.kinds.get('read')?.latencyUs.totalCount).to.equal(ended);
    expect(ended).to.be.within(10, 10 + closed.clients);

    const waiting = new AbortController();
    const hourly = { ...closed, clients: 2, operations: Infinity, ratePerSecond: 1 };
    const drive = new Drive(quick, { ...hourly, stop: waiting.signal });
    setImmediate(() => {
      waiting.abort();
    });
    expect((await drive.run()).interrupted).to.equal(true);
  });

  it('counts what failed by its code, apart from what succeeded, and what was missing', async () => {
    let n = 0;
    const next = (): Action => ({
      kind: 'read',
      run: () => {
        n += 1;
        if (n % 4 === 0)
          return Promise.reject(
            new KvError(`no ${n}`, { code: 'KV_OVERLOADED', outcome: 'notApplied' }),
          );
        return Promise.resolve(n % 4 === 1);
      },
    });
    const { kinds, failures } = await new Drive(next, closed).run();
    const read = kinds.get('read');
    expect(read?.errors).to.equal(25);
    expect(read?.missing).to.equal(50);
    expect(read?.latencyUs.totalCount).to.equal(75);
    expect([...failures]).to.deep.equal([['KV_OVERLOADED', { count: 25, message: 'no 4' }]]);
  });

  it('a failure that is no error of the service ends it', async () => {
    const next = (): Action => ({ kind: 'read', run: () => Promise.reject(new TypeError('bug')) });
    let failure: unknown;
    await new Drive(next, closed).run().catch((error: unknown) => (failure = error));
    expect(failure).to.be.instanceOf(TypeError);
  });

  it('with sessions each client has a token of its own', async () => {
    const tokens = new Set<unknown>();
    const next = (): Action => ({
      kind: 'read',
      run: async ({ token }) => {
        tokens.add(token);
        await new Promise(setImmediate);
        return true;
      },
    });
    await new Drive(next, { ...closed, sessions: true }).run();
    expect(tokens.size).to.equal(4);
    expect(tokens.has(undefined)).to.equal(false);
  });
});
