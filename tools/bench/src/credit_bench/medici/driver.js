// Runs medici as its documentation recommends, and prints a sample as one line of JSON.
//
// Each write is one MongoDB transaction. A write that uses credits checks the balance and locks the
// account, as medici's README does. There is no service in between, and no idempotency key.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Book, initModels, mongoTransaction } from "medici";
import mongoose from "mongoose";

const OPENING_CREDITS = 1_000_000_000;
const USERS_PER_OPENING = 1000;
const TICKS_PER_SECOND = 100; // the kernel's USER_HZ

const { values } = parseArgs({
  options: {
    uri: { type: "string" },
    database: { type: "string" },
    users: { type: "string" },
    callers: { type: "string" },
    seconds: { type: "string" },
    "warm-up-seconds": { type: "string" },
    watch: { type: "string", multiple: true, default: [] },
  },
});
const users = Number(values.users);
const seconds = Number(values.seconds);
const warmUpSeconds = Number(values["warm-up-seconds"]);
const book = new Book("credits");
const account = (user) => `Accounts:${user}`;

async function openAccounts() {
  for (let first = 1; first <= users; first += USERS_PER_OPENING) {
    const last = Math.min(users, first + USERS_PER_OPENING - 1);
    const entry = book.entry("opening");
    for (let user = first; user <= last; user++) entry.credit(account(user), OPENING_CREDITS);
    entry.debit("Issued", OPENING_CREDITS * (last - first + 1));
    await entry.commit();
  }
}

async function write() {
  const user = account(1 + Math.floor(Math.random() * users));
  const credits = 1 + Math.floor(Math.random() * 10);
  await mongoTransaction(async (session) => {
    if (Math.random() < 0.5) {
      await book.entry("add").debit("Issued", credits).credit(user, credits).commit({ session });
      return;
    }
    await book.entry("use").debit(user, credits).credit("Used", credits).commit({ session });
    const { balance } = await book.balance({ account: user }, { session });
    if (balance < 0) throw new Error("the balance is too low");
    await book.writelockAccounts([user], { session });
  });
}

function cpuSeconds() {
  const own = process.cpuUsage();
  const used = { load: (own.user + own.system) / 1e6 };
  for (const watched of values.watch) {
    const [name, pids] = watched.split("=");
    used[name] = pids.split(",").reduce((sum, pid) => {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
      return sum + (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
    }, 0);
  }
  return used;
}

function percentile(sorted, rank) {
  return sorted.length ? sorted[Math.ceil((sorted.length * rank) / 100) - 1] : null;
}

async function measure() {
  const begin = performance.now() + warmUpSeconds * 1000;
  const end = begin + seconds * 1000;
  const count = { before: 0, window: 0, after: 0 };
  const errors = {};
  const latencies = [];

  async function caller() {
    for (let started = performance.now(); started < end; started = performance.now()) {
      try {
        await write();
      } catch (error) {
        errors[error.name] = (errors[error.name] ?? 0) + 1;
        continue;
      }
      const ended = performance.now();
      count[ended < begin ? "before" : ended < end ? "window" : "after"]++;
      if (started >= begin) latencies.push(ended - started);
    }
  }

  const callers = Array.from({ length: Number(values.callers) }, caller);
  const at = (moment) => new Promise((done) => setTimeout(done, moment - performance.now()));
  await at(begin);
  const before = cpuSeconds();
  await at(end);
  const after = cpuSeconds();
  await Promise.all(callers);
  latencies.sort((a, b) => a - b);
  const perOperation = (name) => ((after[name] - before[name]) * 1000) / count.window;
  return {
    operations_per_second: count.window / seconds,
    warm_up_operations_per_second: count.before / warmUpSeconds,
    p50_ms: percentile(latencies, 50),
    p99_ms: percentile(latencies, 99),
    acknowledged: count.before + count.window + count.after,
    errors,
    cpu_ms: count.window
      ? Object.fromEntries(Object.keys(after).map((name) => [name, perOperation(name)]))
      : {},
  };
}

await mongoose.connect(values.uri, { dbName: values.database });
await initModels();
await openAccounts();
console.log(JSON.stringify(await measure()));
await mongoose.disconnect();
