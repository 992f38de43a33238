// Jar is run from an archive in the target.

import java.nio.file.*;
public class Jar {
    public static void main(String[] a) throws Exception {
        try (var in = Jar.class.getResourceAsStream("/words.txt")) {
            System.out.println("resource: " + new String(in.readAllBytes()).trim());
        }
        Path p = Path.of(a[0], "made by java");
        Files.writeString(p, "written\n");
        Files.setPosixFilePermissions(p, java.nio.file.attribute.PosixFilePermissions.fromString("rw-r-----"));
        Files.move(p, p.resolveSibling("moved"), StandardCopyOption.ATOMIC_MOVE);
        try (var all = Files.list(Path.of(a[0]))) {
            all.map(q -> q.getFileName().toString()).sorted().forEach(System.out::println);
        }
        try (var c = java.nio.channels.FileChannel.open(Path.of(a[0], "moved"), StandardOpenOption.READ, StandardOpenOption.WRITE); var lock = c.tryLock()) {
            var map = c.map(java.nio.channels.FileChannel.MapMode.READ_WRITE, 0, 8);
            map.put(0, (byte) 'W');
            map.force();
            System.out.println(lock.isValid());
        }
    }
}
