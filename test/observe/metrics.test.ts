import { expect } from 'chai';
import { LoopDelayMeter } from '../../src/observe/loop-delay.js';
import { Meters } from '../../src/observe/meters.js';
import { Metrics, type MetricsSource, type ShardSample } from '../../src/observe/metrics.js';
import { ManualClock } from '../support/manual-clock.js';
import { parseMetrics, valueOf, type Family } from '../support/prometheus-text.js';

const shardOf = (shard: number): ShardSample => ({
  shard,
  role: shard % 3 === 0 ? 'leader' : 'follower',
  term: 7,
  commitIndex: 90,
  appliedIndex: 80,
  lastIndex: 100,
  logLag: shard % 3 === 0 ? 25 : undefined,
  figures: { proposals: 5, proposalsApplied: 3, proposalsUnknown: 1, reads: 12, readRounds: 4 },
});

interface Stage {
  readonly clock: ManualClock;
  readonly meters: Meters;
  shards: readonly ShardSample[];
  scrape(): Promise<ReadonlyMap<string, Family>>;
}

async function withMetrics(run: (stage: Stage) => Promise<void>): Promise<void> {
  const loopDelay = new LoopDelayMeter();
  const clock = new ManualClock();
  const meters = new Meters(clock);
  const source: MetricsSource = {
    shards: () => stage.shards,
    peers: () => [{ node: 2, connected: true, roundTripUs: 1500 }],
    queues: () => [{ queue: 'shard_reads', length: 3, limit: 100 }],
    transport: () => ({ framesOut: 9 }),
    raftLog: () => ({ bytes: 4096 }),
    engine: () => ({ 'block-cache-usage': 77, 'num-files-at-level0': 4 }),
    gauges: [['disk_free_bytes', 'Free', () => 5e9]],
    forwarded: () => 8,
    loopDelay,
  };
  const stage: Stage = {
    clock,
    meters,
    shards: [shardOf(0), shardOf(1)],
    scrape: async () => parseMetrics(await metrics.text()),
  };
  const metrics = new Metrics(source, meters);
  try {
    await run(stage);
  } finally {
    loopDelay.close();
  }
}

const ours = (families: ReadonlyMap<string, Family>): readonly Family[] =>
  [...families.values()].filter(({ name }) => name.startsWith('quorate_'));

describe('metrics', () => {
  it('have HELP, TYPE, and names that end in their unit: counters in _total, others never', () =>
    withMetrics(async ({ scrape }) => {
      const families = ours(await scrape());
      expect(families.length).to.be.above(40);
      for (const { name, type, help } of families) {
        expect(help, name).to.match(/^\S.{2,}/);
        expect(name.endsWith('_total'), name).to.equal(type === 'counter');
        expect(name, 'base units').not.to.match(/_(ms|us|mib|kb|millis\w*)(_|$)/);
        if (type === 'histogram') expect(name).to.match(/_(seconds|bytes)$/);
      }
    }));

  it('carry what the components say, by shard, peer and queue', () =>
    withMetrics(async ({ scrape }) => {
      const families = await scrape();
      const shard = { shard: '1' };
      expect(valueOf(families, 'quorate_shard_apply_lag_entries', shard)).to.equal(10);
      expect(valueOf(families, 'quorate_shard_role', { ...shard, role: 'follower' })).to.equal(1);
      expect(families.get('quorate_shard_log_lag_entries')?.samples).to.deep.equal([
        { name: 'quorate_shard_log_lag_entries', labels: { shard: '0' }, value: 25 },
      ]);
      expect(
        valueOf(families, 'quorate_shard_proposals_total', { ...shard, outcome: 'unknown' }),
      ).to.equal(1);
      expect(valueOf(families, 'quorate_shard_reads_total', shard)).to.equal(12);
      expect(valueOf(families, 'quorate_peer_round_trip_seconds', { peer: '2' })).to.equal(0.0015);
      expect(valueOf(families, 'quorate_queue_length', { queue: 'shard_reads' })).to.equal(3);
      expect(valueOf(families, 'quorate_queue_limit', { queue: 'shard_reads' })).to.equal(100);
      expect(valueOf(families, 'quorate_engine_level_files', { level: '0' })).to.equal(4);
      expect(valueOf(families, 'quorate_forwarded_requests_total')).to.equal(8);
      expect(
        valueOf(families, 'quorate_event_loop_delay_seconds', { quantile: '0.999' }),
      ).to.be.at.least(0);
    }));

  it('put durations into buckets of seconds', () =>
    withMetrics(async ({ scrape, meters, clock }) => {
      const ended = meters.calling('Put');
      const durable = meters.writing(5000);
      clock.jump(15);
      ended('OK');
      durable();
      const families = await scrape();
      const name = 'quorate_client_request_duration_seconds';
      const bucket = (le: string): number | undefined =>
        families
          .get(name)
          ?.samples.find(({ labels }) => labels['le'] === le && labels['method'] === 'Put')?.value;
      expect([bucket('0.01'), bucket('0.02'), bucket('+Inf')]).to.deep.equal([0, 1, 1]);
      expect(
        valueOf(families, 'quorate_client_requests_total', { method: 'Put', code: 'OK' }),
      ).to.equal(1);
      const sync = families.get('quorate_raft_log_sync_duration_seconds')?.samples ?? [];
      expect(sync.find((sample) => sample.name.endsWith('_sum'))?.value).to.equal(0.015);
    }));

  it('of a shard that has left the node are gone, and a scrape counts nothing twice', () =>
    withMetrics(async (stage) => {
      const before = await stage.scrape();
      expect(valueOf(before, 'quorate_shard_reads_total', { shard: '1' })).to.equal(12);
      stage.shards = [shardOf(0)];
      const after = await stage.scrape();
      expect(valueOf(after, 'quorate_shard_reads_total', { shard: '0' })).to.equal(12);
      for (const { name, samples } of after.values())
        expect(
          samples.filter(({ labels }) => labels['shard'] === '1'),
          name,
        ).to.deep.equal([]);
    }));

  it('of 1,000 shards are a bounded number for each, and the rest does not grow with them', () =>
    withMetrics(async (stage) => {
      const count = (families: ReadonlyMap<string, Family>, withShard: boolean): number =>
        ours(families)
          .flatMap(({ samples }) => samples)
          .filter(({ labels }) => (labels['shard'] !== undefined) === withShard).length;
      const rest = count(await stage.scrape(), false);
      stage.shards = Array.from({ length: 1000 }, (_, shard) => shardOf(shard));
      const families = await stage.scrape();
      expect(count(families, true)).to.be.within(10_000, 20_000);
      expect(count(families, false)).to.equal(rest);
    }));
});
