// A launch configuration as the program rewrites it, and what has to be done before the
// editor uses it.

import { run, Stop } from './cli';
import { Configuration, plain } from './launch';

// Task is one of tasks.json's, of type process.
export interface Task {
	label: string;
	command: string;
	args: string[];
	options?: { cwd?: string; env?: Record<string, string> };
	dependsOn?: string;
	isBackground?: boolean;
	problemMatcher?: { background: { endsPattern: string } };
}

export interface Rewritten {
	configuration: Configuration;
	tasks: Task[];
	notes: string[];
	wrapped: boolean;
}

// rewrite gives the configuration for a session.
export async function rewrite(file: string, id: string, folder: string, c: Configuration, stop?: Stop): Promise<Rewritten> {
	const stdin = JSON.stringify({ configurations: [plain(c)] });
	const r = JSON.parse(await run(file, ['debug-config', '--json', '--session', id, '-', c.name], { cwd: folder, stdin, stop }));
	return before({ configuration: r.configuration, tasks: r.tasks ?? [], notes: r.notes ?? [], wrapped: r.wrapped }, c);
}

// before gives the configuration its own first task back: those that belong to a session
// run ahead of it here, after that one.
export function before(r: Rewritten, c: Configuration): Rewritten {
	if (r.tasks.length === 0) {
		return r;
	}
	const { preLaunchTask: _, ...rest } = r.configuration;
	return { ...r, configuration: rest as Configuration, tasks: r.tasks.map(t => ({ ...t, dependsOn: typeof c.preLaunchTask === 'string' ? c.preLaunchTask : undefined })) };
}

// portOf is where a task in the background serves, by what it says then.
export function portOf(t: Task): number {
	return Number(/:(\d+)$/.exec(t.problemMatcher?.background.endsPattern ?? '')?.[1]);
}
