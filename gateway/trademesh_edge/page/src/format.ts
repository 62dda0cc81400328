/** Figures as people read them. Money is exact: it comes as whole micro-dollars and is never turned into a float here. */


/** `$1,234.56`, rounded half away from zero to cents. */
export function dollars(micros: bigint): string {
  const negative = micros < 0n;
  const cents = ((negative ? -micros : micros) + 5_000n) / 10_000n;
  return `${negative ? "−" : ""}$${(cents / 100n).toLocaleString("en-US")}.${String(cents % 100n).padStart(2, "0")}`;
}

/** `$0.125`, with every digit that it has and at least two: what is paid for a share may be less than a cent. */
export function exactly(micros: bigint): string {
  const digits = String(micros).padStart(7, "0");
  return `$${BigInt(digits.slice(0, -6)).toLocaleString("en-US")}.${digits.slice(-6).replace(/0{1,4}$/, "")}`;
}

/** `+1.23 %`. */
export function signedPercent(ratio: number): string {
  if (!Number.isFinite(ratio)) return "–";
  return `${ratio < 0 ? "−" : "+"}${Math.abs(ratio * 100).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })} %`;
}

/** `12.3 %`. */
export function percent(ratio: number): string {
  if (!Number.isFinite(ratio)) return "–";
  return `${ratio < 0 ? "−" : ""}${Math.abs(ratio * 100).toFixed(1)} %`;
}

/** One amount over another. */
export function ratio(part: bigint, whole: bigint): number {
  return whole === 0n ? Number.NaN : Number(part) / Number(whole);
}

/** `1,234`, with a true minus. */
export function whole(value: bigint | number): string {
  return value.toLocaleString("en-US").replace("-", "−");
}

/** `1.23` per share. */
export function price(micros: bigint | undefined): string {
  return micros === undefined ? "–" : dollars(micros);
}

/** The name of an enum's value without its prefix, in lower case: `POSITION_LIMIT` is `position limit`. */
export function words(enumeration: Record<number, string>, value: number): string {
  return (enumeration[value] ?? String(value)).toLowerCase().replaceAll("_", " ");
}

