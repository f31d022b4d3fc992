/** What can be changed of a running cluster: names, bounds and what a new cluster begins with. */

interface Setting {
  readonly min: number;
  readonly max: number;
  readonly first: number;
  /** The version of commands that it came with (rule D16); absent: 1. */
  readonly since?: number;
  /** For people. */
  readonly meaning: string;
}

const dayMs = 86_400_000;

const settings: ReadonlyMap<string, Setting> = new Map([
  [
    'suspectAfterMs',
    { min: 100, max: dayMs, first: 3_000, meaning: 'silence after which a node is suspect' },
  ],
  [
    'downAfterMs',
    { min: 100, max: dayMs, first: 10_000, meaning: 'silence after which a node is down' },
  ],
  [
    'replaceAfterMs',
    {
      min: 100,
      max: 30 * dayMs,
      first: 300_000,
      meaning: 'how long a node is away before its replicas are built anew elsewhere',
    },
  ],
  [
    'repairsMax',
    { min: 0, max: 64, first: 2, meaning: 'replicas that are rebuilt at one time; 0 pauses it' },
  ],
  [
    'migrationsMax',
    {
      min: 0,
      max: 64,
      first: 4,
      since: 2,
      meaning: 'migrations that run at one time; 0: no more are begun',
    },
  ],
  [
    'migrationBytesPerSecond',
    {
      min: 65_536,
      max: 10_000_000_000,
      first: 33_554_432,
      since: 2,
      meaning: 'the most that one migration copies, unless it is throttled by itself',
    },
  ],
  [
    'freezeMsMax',
    {
      min: 100,
      max: 60_000,
      first: 2_000,
      since: 2,
      meaning: 'how long a slot stands still for its handover before that is given up',
    },
  ],
  [
    'migrationGiveUpMs',
    {
      min: 1_000,
      max: dayMs,
      first: 60_000,
      since: 2,
      meaning: 'how long a migration may get nowhere before it fails',
    },
  ],
]);

/** All there are, with what holds where `current` does. */
export function describeSettings(
  current: Readonly<Record<string, number>>,
): readonly (Setting & { readonly name: string; readonly value: number })[] {
  return [...settings].map(([name, setting]) => ({
    ...setting,
    name,
    value: current[name] ?? setting.first,
  }));
}

/**
 * What `init` writes down: settings that came later hold from the start without being written, so that
 * the same command makes the same bytes in every version of the program.
 */
export function firstSettings(): Readonly<Record<string, number>> {
  const known = [...settings].filter(([, { since = 1 }]) => since === 1);
  return Object.fromEntries(known.map(([name, { first }]) => [name, first]));
}

/** What holds. Throws RangeError for a name that is no setting. */
export function settingOf(current: Readonly<Record<string, number>>, name: string): number {
  const value = current[name] ?? settings.get(name)?.first;
  if (value === undefined) throw new RangeError(`there is no setting '${name}'`);
  return value;
}

/** The version of commands that a setting came with. */
export function settingSince(name: string): number {
  return settings.get(name)?.since ?? 1;
}

/**
 * What is wrong with setting `name` to `value` where `current` holds; undefined: nothing. `version`: of
 * the command, which knows no setting that came later.
 */
export function problemOfSetting(
  current: Readonly<Record<string, number>>,
  { name, value }: { readonly name: string; readonly value: number },
  version: number,
): string | undefined {
  const setting = settings.get(name);
  if (setting === undefined || version < settingSince(name))
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
