/** A group of this node as its metrics show it. */
import type { HostedGroup } from '../group/host.js';
import type { ShardSample } from '../observe/metrics.js';

export function sampleOf(group: HostedGroup): ShardSample {
  const { role, term, commitIndex, appliedIndex, lastIndex, progress } = group.status();
  const matches = progress.filter(({ id }) => id !== group.replica).map(({ match }) => match);
  return {
    shard: group.id,
    role,
    term,
    commitIndex,
    appliedIndex,
    lastIndex,
    logLag: role === 'leader' ? lastIndex - Math.min(lastIndex, ...matches) : undefined,
    figures: group.figures(),
  };
}
