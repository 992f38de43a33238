// Which launches run in a session. Pure: it reads a configuration of VS Code's and says.

// Wish is what the property "mirrord" of a configuration, or its environment, says.
export interface Wish {
	enabled?: boolean;
	target?: string;
	config?: string;
}

export interface Configuration {
	type: string;
	name: string;
	request: string;
	[key: string]: unknown;
}

// windows open a window of the editor's or a browser's: there is nothing to wrap.
const windows = ['extensionHost', 'pwa-extensionHost', 'chrome', 'pwa-chrome', 'msedge', 'pwa-msedge'];

// wishOf reads what a configuration says itself.
export function wishOf(c: Configuration): Wish {
	const own = typeof c.mirrord === 'object' && c.mirrord !== null ? c.mirrord as Wish : {};
	const env = typeof c.env === 'object' && c.env !== null ? c.env as Record<string, unknown> : {};
	const active = { '0': false, '1': true }[String(env.MIRRORD_ACTIVE)];
	const file = typeof env.MIRRORD_CONFIG_FILE === 'string' && env.MIRRORD_CONFIG_FILE !== '' ? env.MIRRORD_CONFIG_FILE : undefined;
	return { ...own, enabled: own.enabled ?? active, config: own.config ?? file };
}

// wraps reports whether a launch is to run in a session. on is what the workspace says.
export function wraps(c: Configuration, on: boolean): boolean {
	if (c.request === 'attach' || windows.includes(c.type)) {
		return false;
	}
	if ('__pendingTargetId' in c) {
		return false; // a child of js-debug's: its process is in the session already
	}
	return wishOf(c).enabled ?? on;
}

// plain is a configuration without what is ours: what VS Code's adapters get.
export function plain(c: Configuration): Configuration {
	const { mirrord: _, ...rest } = c;
	return rest as Configuration;
}
