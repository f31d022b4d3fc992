/** What can be changed of a running cluster: names, bounds and what a new cluster begins with. */

interface Setting {
  readonly min: number;
  readonly max: number;
  readonly first: number;
}

const dayMs = 86_400_000;

const settings: ReadonlyMap<string, Setting> = new Map([
  /** Silence after which a node is `suspect`, then `down`. */
  ['suspectAfterMs', { min: 100, max: dayMs, first: 3_000 }],
  ['downAfterMs', { min: 100, max: dayMs, first: 10_000 }],
  /** How long a node is down before its replicas are built anew elsewhere. */
  ['replaceAfterMs', { min: 100, max: 30 * dayMs, first: 300_000 }],
  /** Replicas that are rebuilt at one time in the whole cluster; 0 pauses repair. */
  ['repairsMax', { min: 0, max: 64, first: 2 }],
]);

export function firstSettings(): Readonly<Record<string, number>> {
  return Object.fromEntries([...settings].map(([name, { first }]) => [name, first]));
}

/** What is wrong with setting `name` to `value` where `current` holds; undefined: nothing. */
export function problemOfSetting(
  current: Readonly<Record<string, number>>,
  name: string,
  value: number,
): string | undefined {
  const setting = settings.get(name);
  if (setting === undefined)
    return `there is no setting '${name}': use one of ${[...settings.keys()].join(', ')}`;
  const { min, max } = setting;
  if (!Number.isInteger(value) || value < min || value > max)
    return `${name} must be an integer from ${min} to ${max}, got ${value}`;
  const after: Readonly<Record<string, number>> = { ...current, [name]: value };
  const { suspectAfterMs = 0, downAfterMs = 0 } = after;
  if (suspectAfterMs <= downAfterMs) return undefined;
  return (
    `suspectAfterMs (${suspectAfterMs}) must not be above downAfterMs (${downAfterMs}): ` +
    'change the other one first'
  );
}
