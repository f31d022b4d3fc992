/** The tables that HPACK indexes (RFC 7541, 2.3): 61 fixed fields, then what the peer has put in. */

export interface HeaderField {
  readonly name: string;
  readonly value: string;
  /**
   * As RFC 9113, 8.2.1 wants it, but for blanks at the ends of a value: clients of gRPC send what their
   * user gives them, and all servers take it. Found out once, when the field is read, and not at each use.
   */
  readonly valid: boolean;
}

/** What an entry counts beyond its characters (RFC 7541, 4.1). */
const entryOverheadBytes = 32;

/** Lower case, of the characters of a token; a colon only in front. */
const validName = /^:?[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** No control characters but tabs. */
const validValue = /^[\t !-~\x80-\xff]*$/;
/** Of a pseudo-field: no blank at either end. */
const validPseudoValue = /^(?:[!-~\x80-\xff](?:[\t !-~\x80-\xff]*[!-~\x80-\xff])?)?$/;
const colon = 0x3a;

const staticNames = `:authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|
:scheme=https|:status=200|:status=204|:status=206|:status=304|:status=400|:status=404|:status=500|
accept-charset|accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|
access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|
content-encoding|content-language|content-length|content-location|content-range|content-type|cookie|
date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|
if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|
proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|strict-transport-security|
transfer-encoding|user-agent|vary|via|www-authenticate`;

/** Entry 1 is at 0. */
export const staticFields: readonly HeaderField[] = staticNames.split('|').map((entry) => {
  const text = entry.trim();
  const at = text.indexOf('=');
  return at === -1 ? newField(text, '') : newField(text.slice(0, at), text.slice(at + 1));
});

export function newField(name: string, value: string): HeaderField {
  const values = name.charCodeAt(0) === colon ? validPseudoValue : validValue;
  return { name, value, valid: validName.test(name) && values.test(value) };
}

export function fieldBytes(field: HeaderField): number {
  return field.name.length + field.value.length + entryOverheadBytes;
}

/** The dynamic table: newest first by index, never over its limit. */
export class DynamicTable {
  /** Oldest first; those before `first` have been evicted. */
  private entries: HeaderField[] = [];
  private first = 0;
  private usedBytes = 0;
  private limitBytes: number;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get bytes(): number {
    return this.usedBytes;
  }

  /** 0 is the newest. */
  at(index: number): HeaderField | undefined {
    const at = this.entries.length - 1 - index;
    return at < this.first ? undefined : this.entries[at];
  }

  resize(limitBytes: number): void {
    this.limitBytes = limitBytes;
    this.evict(0);
  }

  /** A field larger than the table empties it, and that is no error (RFC 7541, 4.4). */
  add(field: HeaderField): void {
    const bytes = fieldBytes(field);
    this.evict(bytes);
    if (bytes > this.limitBytes) return;
    this.entries.push(field);
    this.usedBytes += bytes;
  }

  /** Until so many more bytes fit, or nothing is left. */
  private evict(moreBytes: number): void {
    while (this.usedBytes + moreBytes > this.limitBytes) {
      const oldest = this.entries[this.first];
      if (oldest === undefined) break;
      this.first += 1;
      this.usedBytes -= fieldBytes(oldest);
    }
    // Moved only when half of it is gone, so that each entry is moved about once.
    if (this.first * 2 > this.entries.length) {
      this.entries = this.entries.slice(this.first);
      this.first = 0;
    }
  }
}
