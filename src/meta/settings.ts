/** What can be changed of a running cluster: names, bounds and what a new cluster begins with. */

interface Setting {
  readonly min: number;
  readonly max: number;
  readonly first: number;
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
