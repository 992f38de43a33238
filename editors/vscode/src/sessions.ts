// The sessions of this window: each is started when the first launch wants it, and kept
// for the next. What a session is and does the program knows; this holds its ids.

import { ChildProcess, spawn } from 'node:child_process';
import { Activity, keep } from './activity';
import { Event, Failure } from './failure';
import { Cancelled, lines, run, Stop } from './cli';
import { Choice } from './targets';

// Port is one that a program of the session listens on.
export interface Port {
	network?: string;
	port: number;
	target?: number;
	mode?: string;
	filter?: string;
	published?: string;
}

// Status is what `mirrord status ID -o json` says, as far as it is shown.
export interface Status {
	id: string;
	target?: string;
	namespace?: string;
	context?: string;
	since: string;
	mode: string;
	lost?: string;
	ports: Port[] | null;
	commands?: unknown[] | null;
}

// Wanted says which session a launch wants. An empty choice leaves the target to the
// configuration.
export interface Wanted {
	folder: string;
	choice?: Choice;
	config?: string;
	keep: number; // seconds without a command
	stamp: string; // of the configuration's files, as they are: another one is another session
}

// flags are those of `mirrord session start`.
export function flags(w: Wanted): string[] {
	const all = ['--agent-ttl', String(w.keep)];
	if (w.choice) {
		all.push(...(w.choice.path === '' ? [] : ['-t', w.choice.path]), '-n', w.choice.namespace, ...(w.choice.context ? ['--context', w.choice.context] : []));
	}
	return w.config ? [...all, '-f', w.config] : all;
}

// Session is one that runs.
export class Session {
	status: Status;
	readonly recent: Activity[] = []; // the newest first
	private watcher: ChildProcess;
	private asking = false;
	private again = false;
	private waiting: { done: (s: Status) => boolean; resolve: () => void; reject: (err: Error) => void }[] = [];

	constructor(private readonly file: string, readonly wanted: Wanted, status: Status, private readonly changed: (ended: boolean) => void) {
		this.status = status;
		this.watcher = spawn(file, ['status', '--events', '-', status.id], { stdio: ['ignore', 'pipe', 'ignore'] });
		lines(this.watcher.stdout!, line => this.hear(line));
		this.watcher.on('error', () => this.ended());
		this.watcher.on('close', () => this.ended()); // it ends with the session
	}

	// until waits until the session is as done wants it.
	until(done: (s: Status) => boolean): Promise<void> {
		return new Promise((resolve, reject) => {
			this.waiting.push({ done, resolve, reject });
			void this.look();
		});
	}

	private ended(): void {
		this.waiting.splice(0).forEach(w => w.reject(new Failure('vscode-session-ended', `the session ${this.id} has ended`, '', 'launch again')));
		this.changed(true);
	}

	get id(): string {
		return this.status.id;
	}

	// look asks how the session is; one question at a time.
	async look(): Promise<void> {
		if (this.asking) {
			this.again = true;
			return;
		}
		this.asking = true;
		this.again = false;
		try {
			this.status = JSON.parse(await run(this.file, ['status', this.id, '-o', 'json']));
			this.waiting = this.waiting.filter(w => !w.done(this.status) || w.resolve());
			this.changed(false);
		} catch {
			// it has ended, of which the watcher tells
		} finally {
			this.asking = false;
		}
		if (this.again) {
			await this.look(); // something has come meanwhile
		}
	}

	private hear(line: string): void {
		let a: Activity;
		try {
			a = JSON.parse(line);
		} catch {
			return;
		}
		if (a.kind === 'session') {
			void this.look(); // a port, the link
		}
		keep(this.recent, a);
		this.changed(false);
	}
}

// wishOf is what a session is wanted for, whatever its configuration says at the time.
function wishOf(w: Wanted): string {
	return JSON.stringify({ ...w, stamp: '' });
}

// Sessions are all of this window.
export class Sessions {
	private readonly byWish = new Map<string, { stamp: string; session: Promise<Session> }>();
	readonly running: Session[] = [];

	// changed is called when there is something else to be seen.
	constructor(private readonly changed: () => void) {}

	// has reports whether the session that is wanted runs.
	async has(w: Wanted): Promise<boolean> {
		const there = this.byWish.get(wishOf(w));
		return there?.stamp === w.stamp && this.running.includes(await there.session);
	}

	// ensure gives the session that is wanted, and starts it if there is none. One
	// whose configuration has changed since it began is ended, unless something runs in
	// it. It throws what run does.
	async ensure(file: string, w: Wanted, stop: Stop, onEvent: (e: Event) => void): Promise<Session> {
		const wish = wishOf(w), there = this.byWish.get(wish);
		const old = await there?.session;
		if (there && old && this.running.includes(old)) {
			if (there.stamp === w.stamp) {
				return old;
			}
			await old.look();
			if (!old.status.commands?.length) {
				await this.stop(file, old.id);
			}
		}
		if (this.byWish.get(wish) !== there) {
			return this.ensure(file, w, stop, onEvent); // somebody else has begun meanwhile
		}
		const session = this.start(file, w, stop, onEvent);
		this.byWish.set(wish, { stamp: w.stamp, session });
		try {
			return await session;
		} catch (err) {
			this.byWish.delete(wish);
			throw err;
		}
	}

	private async start(file: string, w: Wanted, stop: Stop, onEvent: (e: Event) => void): Promise<Session> {
		let out: string;
		try {
			out = await run(file, ['session', 'start', '--json', ...flags(w)], { cwd: w.folder, stop, onEvent });
		} catch (err) {
			if (err instanceof Cancelled && err.printed !== '') { // too late: the session is there
				await this.stop(file, JSON.parse(err.printed).id);
			}
			throw err;
		}
		const status: Status = JSON.parse(out);
		if (typeof status.id !== 'string') {
			throw new Failure('vscode-version', 'mirrord has started a session that has no id', out, 'install the mirrord that belongs to this extension');
		}
		const s: Session = new Session(file, w, status, ended => {
			if (ended) {
				this.running.splice(this.running.indexOf(s), 1);
			}
			this.changed();
		});
		this.running.push(s);
		this.changed();
		return s;
	}

	// stop ends a session and what runs in it.
	async stop(file: string, id: string): Promise<void> {
		await run(file, ['session', 'stop', id]);
	}
}
