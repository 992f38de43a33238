// The mirrord program: where it is, and how it is asked. Everything that mirrord knows is
// asked of it; nothing of it is done here.

import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Event, Failure, failureOf, parseEvent } from './failure';

// Stop is what ends a program early.
export interface Stop {
	isCancellationRequested: boolean;
	onCancellationRequested(f: () => void): { dispose(): void };
}

export interface Options {
	cwd?: string;
	stdin?: string;
	stop?: Stop;
	onEvent?: (e: Event) => void;
	onLine?: (line: string) => void; // of stdout, as they come; then the result is empty
	codes?: number[]; // beside 0 that are no failure
}

// Cancelled is thrown when Stop came before a program's end. What it printed is kept where
// it had done its work all the same.
export class Cancelled extends Error {
	constructor(readonly printed = '') {
		super();
	}
}

// locate finds the program: by the setting, in PATH, or packed with the extension.
export function locate(setting: string, searched: string | undefined, packed: string): string {
	const runs = (file: string): boolean => {
		try {
			fs.accessSync(file, fs.constants.X_OK);
			return fs.statSync(file).isFile();
		} catch {
			return false;
		}
	};
	if (setting !== '') {
		if (!runs(setting)) {
			throw new Failure('vscode-no-binary', `the setting mirrord.binaryPath names ${setting}, which cannot be run`, '', 'correct the setting, or leave it empty');
		}
		return setting;
	}
	for (const dir of (searched ?? '').split(path.delimiter)) {
		const file = path.join(dir, 'mirrord');
		if (path.isAbsolute(dir) && runs(file)) {
			return file;
		}
	}
	if (runs(packed)) {
		return packed;
	}
	throw new Failure('vscode-no-binary', 'there is no mirrord on this machine', 'it is neither in PATH nor in the setting mirrord.binaryPath, and this package of the extension has none',
		'install mirrord, or the package of the extension that is made for this machine');
}

// wanted is the oldest version of the program that says what the extension asks.
export const wanted = [0, 1, 0];

// checkVersion refuses a program that is older than wanted, or another one of that name.
export function checkVersion(file: string, printed: string): void {
	const m = /^mirrord (?:version )?v?(\d+)\.(\d+)\.(\d+)/.exec(printed.trim());
	if (!m) {
		throw new Failure('vscode-version', `${file} is not the mirrord that this extension works with`, `it says: ${printed.trim().split('\n')[0]}`,
			'name the right one in the setting mirrord.binaryPath');
	}
	const has = m.slice(1).map(Number);
	for (let i = 0; i < wanted.length; i++) {
		if (has[i] !== wanted[i]) {
			if (has[i] > wanted[i]) {
				return;
			}
			throw new Failure('vscode-version', `${file} is too old for this extension`, `it is ${has.join('.')}, the extension needs ${wanted.join('.')}`, 'install a newer mirrord');
		}
	}
}

// run runs the program and gives what it prints. It throws a Failure, or Cancelled.
export function run(file: string, args: string[], o: Options = {}): Promise<string> {
	return new Promise((resolve, reject) => {
		if (o.stop?.isCancellationRequested) {
			reject(new Cancelled());
			return;
		}
		const child = spawn(file, args, { cwd: o.cwd, env: { ...process.env, MIRRORD_PROGRESS_MODE: 'json' }, stdio: ['pipe', 'pipe', 'pipe'] });
		const events: Event[] = [];
		let out = '', said = '', stopped = false;
		const heard = o.stop?.onCancellationRequested(() => {
			stopped = true;
			child.kill('SIGTERM');
		});
		child.stdin.on('error', () => undefined); // it may end without reading
		child.stdin.end(o.stdin ?? '');
		if (o.onLine) {
			lines(child.stdout, o.onLine);
		} else {
			child.stdout.setEncoding('utf8').on('data', text => out += text);
		}
		lines(child.stderr, line => {
			const e = parseEvent(line);
			if (e) {
				events.push(e);
				o.onEvent?.(e);
			} else {
				said = (said + line + '\n').slice(-4096);
			}
		});
		child.on('error', err => {
			heard?.dispose();
			reject(new Failure('vscode-no-binary', `${file} cannot be run`, err.message, 'name another one in the setting mirrord.binaryPath'));
		});
		child.on('close', code => {
			heard?.dispose();
			if (stopped) {
				reject(new Cancelled(code === 0 ? out : ''));
			} else if (code === 0 || (code !== null && o.codes?.includes(code))) {
				resolve(out);
			} else {
				reject(failureOf(events, said, code));
			}
		});
	});
}

// lines calls f with each line of a stream; the last may have no end.
export function lines(stream: NodeJS.ReadableStream, f: (line: string) => void): void {
	let rest = '';
	stream.setEncoding('utf8');
	stream.on('data', (text: string) => {
		const all = (rest + text).split('\n');
		rest = all.pop() ?? '';
		all.forEach(f);
	});
	stream.on('end', () => rest !== '' && f(rest));
}
